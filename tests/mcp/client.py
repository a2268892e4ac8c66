"""A client of the Model Context Protocol, the one that agents use: starts a server, calls its tools, prints all it says.

Reads one JSON object from standard input: {"command": [program, argument...], "env": {...}, "calls": [[tool, {...}], ...]}
and prints one: {"server": {...}, "tools": [...], "results": [...]}.
"""

import asyncio
import json
import sys

from mcp import Client, StdioServerParameters


async def main() -> None:
    order = json.load(sys.stdin)
    program, *arguments = order["command"]
    server = StdioServerParameters(command=program, args=arguments, env=order["env"])
    said = lambda model: model.model_dump(mode="json", by_alias=True, exclude_none=True)
    async with Client(server) as client:
        tools = await client.list_tools()
        results = []
        for tool, argument in order["calls"]:
            try:
                results.append(said(await client.call_tool(tool, argument)))
            except Exception as error:  # a protocol error is an answer too
                results.append({"protocolError": str(error)})
        server = said(client.server_info)
        print(json.dumps({"server": server, "tools": said(tools)["tools"], "results": results}))


asyncio.run(main())
