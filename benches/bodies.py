"""The fixed bodies that the upstream of the measurement answers.

Every row of rows20.json (about 4 KiB) and rows1000.json (about 200 KiB) passes the filter: even rows belong to
the granted team, odd rows to no team and to the subject. check.json holds one row for each way of passing or
being withheld, and names that say secret; long1000.json (about 1 MiB) is for searching; EXPECTED is what a correct filter leaves of it.
"""
import json
import os
import random
import uuid

TEAM, OWNER, PROJECT, MISSION = "team-platform", "user-e1", "project-fed", "mission-fed"
FACTS = {
    "teams": [{"id": TEAM}, {"id": "team-not-granted"}],
    "projects": [{"id": PROJECT, "teamId": TEAM, "ownerId": OWNER}],
    "missions": [{"id": MISSION, "projectId": PROJECT, "teamId": None, "ownerId": OWNER}],
    "next": None,
}


def bench_row(rnd, index):
    """One row of about 200 bytes."""
    team = index % 2 == 0
    return {
        "id": str(uuid.UUID(int=rnd.getrandbits(128), version=4)),
        "createdAt": "2026-01-%02dT12:%02d:%02d.000Z" % (28 - index % 28, index // 60 % 60, index % 60),
        "ownerId": OWNER,
        "teamId": TEAM if team else None,
        "projectId": None,
        "missionId": None,
        "title": "item %06d" % index,
        "status": rnd.choice(["todo", "doing", "done"]),
    }


# Words of the long rows: a question for the rarest finds about one row in fifty.
WORDS = ["federation", "gateway", "audit", "ledger", "renewal", "lease", "scope", "grant", "window", "budget", "harbour", "quartz"]
RARE = "zephyr"
HITS = 20


def long_row(rnd, index):
    """One row of about 1 KiB, most of it prose."""
    row = bench_row(rnd, index)
    text = " ".join(rnd.choice(WORDS) for _ in range(104))
    return {**row, "description": text + (" " + RARE if index % 50 == 0 else "")}


def check_row(number, **members):
    """One row of check.json; a higher number is older."""
    row = {"id": "check-%d" % number, "createdAt": "2026-01-01T00:00:%02d.000Z" % (59 - number)}
    return {**row, **members}


CHECK = [
    check_row(1, ownerId="someone", teamId=TEAM),
    check_row(2, ownerId=OWNER, teamId="team-not-granted"),
    check_row(3, ownerId=OWNER, teamId=None),
    check_row(4, ownerId="someone", teamId=None),
    check_row(5, ownerId="someone", projectId=PROJECT),
    check_row(6, missionId=MISSION),
    check_row(7, ownerId=OWNER, accessToken="x", meta={"password_hash": "x", "tokenizer": "bpe", "list": [{"apiKeys": 1}]}),
    check_row(8, ownerId=OWNER, projectId="project-unknown"),
    check_row(9, title="nobody's"),
]
EXPECTED = [
    {**CHECK[0], "_source": "local"},
    {**CHECK[2], "_source": "local"},
    {**CHECK[4], "_source": "local"},
    {**CHECK[5], "_source": "local"},
    {**check_row(7, ownerId=OWNER, meta={"tokenizer": "bpe", "list": [{}]}), "_source": "local"},
]


def write(directory):
    """Writes all bodies into `directory`; returns their sizes by name."""
    os.makedirs(directory, exist_ok=True)
    rnd = random.Random(7)
    bodies = {"facts": FACTS, "health": {"status": "ok", "contract": "internal-v1"}, "check": {"rows": CHECK}}
    for name, count, make in (("rows20", 20, bench_row), ("rows1000", 1000, bench_row), ("long1000", 1000, long_row)):
        rows = [make(rnd, index) for index in range(count)]
        rows.sort(key=lambda row: (row["createdAt"], row["id"]), reverse=True)
        bodies[name] = {"rows": rows}
    sizes = {}
    for name, body in bodies.items():
        text = json.dumps(body, separators=(",", ":"))
        with open(os.path.join(directory, name + ".json"), "w") as file:
            file.write(text)
        sizes[name] = len(text)
    return sizes
