//! What the kernel holds of a connection on loopback, from `/proc/net/tcp`.

use std::net::SocketAddr;

/// Bytes in the kernel: `(queued for sending, waiting to be read)` of the socket that is `local` and
/// talks to `remote`; `None` once there is no such socket any more.
pub fn queues(local: SocketAddr, remote: SocketAddr) -> Option<(u64, u64)> {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (local, remote) = (in_hex(local), in_hex(remote));
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        if fields.next()? != local || fields.next()? != remote {
            return None;
        }
        let (sending, waiting) = fields.nth(1)?.split_once(':')?;
        let bytes = |text| u64::from_str_radix(text, 16).unwrap();
        Some((bytes(sending), bytes(waiting)))
    })
}

/// An IPv4 address as the kernel prints it: the four bytes as one number in the machine's order.
fn in_hex(address: SocketAddr) -> String {
    let SocketAddr::V4(address) = address else {
        panic!("IPv4 only");
    };
    let number = u32::from_ne_bytes(address.ip().octets());
    format!("{number:08X}:{:04X}", address.port())
}

/// Most that a socket's receive buffer can hold unless told otherwise, bytes.
pub fn receive_max() -> u64 {
    let limits = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_rmem").unwrap();
    limits.split_whitespace().nth(2).unwrap().parse().unwrap()
}
