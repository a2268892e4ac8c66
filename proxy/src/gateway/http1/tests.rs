//! Responses in every framing, whole and in pieces, and those that are refused.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

fn head(fields: &str) -> Result<Option<ResponseHead>, Unreadable> {
    ResponseHead::parse(format!("HTTP/1.1 200 OK\r\n{fields}\r\n").as_bytes())
}

/// Reads a body that arrives in pieces of the given lengths, and nothing after it; says how many bytes it had.
fn read(
    mut body: BodyEnd,
    wire: &[u8],
    pieces: &[usize],
) -> Result<Option<(Vec<u8>, usize)>, Unreadable> {
    let mut pieces = pieces.iter().copied().cycle();
    let (mut data, mut start, mut end) = (Vec::new(), 0, 0);
    loop {
        match body.next(&wire[start..end])? {
            Part::Data(from, to) => {
                data.extend_from_slice(&wire[start + from..start + to]);
                start += to;
            }
            Part::More(used) => {
                start += used;
                if end == wire.len() {
                    return Ok(body.is_close().then_some((data, start)));
                }
                end = wire.len().min(end + pieces.next().unwrap_or(1).max(1));
            }
            Part::End(used) => return Ok(Some((data, start + used))),
        }
    }
}

fn chunked(data: &[u8], sizes: &[usize]) -> Vec<u8> {
    let mut wire = Vec::new();
    let mut sizes = sizes.iter().copied().cycle();
    let mut rest = data;
    while !rest.is_empty() {
        let (chunk, more) = rest.split_at(rest.len().min(sizes.next().unwrap_or(1).max(1)));
        wire.extend_from_slice(format!("{:x};note=1\r\n", chunk.len()).as_bytes());
        wire.extend_from_slice(chunk);
        wire.extend_from_slice(b"\r\n");
        rest = more;
    }
    wire.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
    wire
}

proptest! {
    #[test]
    fn a_body_is_the_same_however_it_is_framed_and_cut(
        data in proptest::collection::vec(any::<u8>(), 0..300),
        sizes in proptest::collection::vec(1usize..60, 1..6),
        pieces in proptest::collection::vec(1usize..80, 1..6),
        behind in proptest::collection::vec(any::<u8>(), 0..20),
    ) {
        let length = BodyEnd::Length(u64::try_from(data.len()).unwrap());
        let wire = [&data[..], &behind].concat();
        prop_assert_eq!(read(length, &wire, &pieces), Ok(Some((data.clone(), data.len()))));
        let chunks = chunked(&data, &sizes);
        let wire = [&chunks[..], &behind].concat();
        let start = BodyEnd::Chunked(Chunk::Size, 0);
        prop_assert_eq!(read(start, &wire, &pieces), Ok(Some((data.clone(), chunks.len()))));
        prop_assert_eq!(read(BodyEnd::Close, &data, &pieces), Ok(Some((data.clone(), data.len()))));
    }

    #[test]
    fn a_body_cut_short_never_ends(
        data in proptest::collection::vec(any::<u8>(), 1..100),
        sizes in proptest::collection::vec(1usize..60, 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let length = BodyEnd::Length(u64::try_from(data.len()).unwrap());
        prop_assert_eq!(read(length, &data[..cut.index(data.len())], &[7]), Ok(None));
        let chunks = chunked(&data, &sizes);
        let start = BodyEnd::Chunked(Chunk::Size, 0);
        prop_assert_eq!(read(start, &chunks[..cut.index(chunks.len())], &[7]), Ok(None));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = ResponseHead::parse(&bytes);
        let _ = read(BodyEnd::Chunked(Chunk::Size, 0), &bytes, &[3]);
    }
}

#[test]
fn the_usual_head() {
    let text =
        "Server: x\r\ncontent-type: Application/JSON; charset=utf-8\r\nContent-Length: 17\r\n";
    let found = head(text).unwrap().unwrap();
    assert_eq!(
        (found.status, found.json, found.encoded),
        (200, true, false)
    );
    assert_eq!((found.body, found.keep_alive), (BodyEnd::Length(17), true));
    assert_eq!(found.length, "HTTP/1.1 200 OK\r\n".len() + text.len() + 2);
    for cut in 0..text.len() {
        assert_eq!(
            ResponseHead::parse(&format!("HTTP/1.1 200 OK\r\n{text}").as_bytes()[..cut]),
            Ok(None)
        );
    }
}

#[test]
fn a_connection_is_kept_only_where_the_end_of_the_body_is_certain() {
    let kept = |text: &str| {
        ResponseHead::parse(text.as_bytes())
            .unwrap()
            .unwrap()
            .keep_alive
    };
    assert!(kept(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"
    ));
    assert!(!kept("HTTP/1.1 200 OK\r\n\r\n"));
    assert!(!kept("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n"));
    assert!(!kept(
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: x, Close\r\n\r\n"
    ));
}

#[test]
fn a_body_whose_end_could_be_told_in_two_ways_is_refused() {
    for fields in [
        "Content-Length: 3\r\nContent-Length: 3\r\n",
        "Content-Length: 3, 3\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: \r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "X-Folded: a\r\n b\r\n",
        "Spaced : a\r\n",
    ] {
        assert!(head(fields).is_err(), "{fields}");
    }
    let old = b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert!(ResponseHead::parse(old).is_err());
    assert!(ResponseHead::parse(b"SSH-2.0-x\r\n\r\n").is_err());
}

#[test]
fn chunks_are_refused_where_they_are_not_what_they_say() {
    let long = |fill: &str| format!("1{fill}\r\na\r\n0\r\n\r\n");
    for wire in [
        "\r\n\r\n",
        "-1\r\n",
        "1\na\n0\n\n",
        "2\r\na\r\n0\r\n\r\n",
        "1\r\nab\r\n0\r\n\r\n",
        "fffffffffffffffff\r\n",
        "0\r\nTrailer: a\n\r\n",
        &long(&format!(";{}", "x".repeat(MAX_FRAMING))),
        &format!("0\r\nT: {}\r\n\r\n", "x".repeat(MAX_FRAMING)),
    ] {
        let start = BodyEnd::Chunked(Chunk::Size, 0);
        let short: String = wire.chars().take(30).collect();
        assert!(read(start, wire.as_bytes(), &[50_000]).is_err(), "{short}");
    }
}

#[test]
fn interim_heads_are_passed_and_no_other_protocol_is_switched_to() {
    let interim = |status| {
        let text = format!("HTTP/1.1 {status} X\r\n\r\n");
        ResponseHead::parse(text.as_bytes())
            .unwrap()
            .unwrap()
            .is_interim()
    };
    assert!(interim(100) && interim(103));
    assert!(!interim(101) && !interim(200));
}

#[test]
fn a_target_cannot_break_out_of_its_line() {
    for wrong in ["", "a", "/a b", "/a\r\nX: y", "/\u{e9}", "/\0"] {
        assert_eq!(request_line(wrong), None, "{wrong:?}");
    }
    assert_eq!(
        request_line("/a?b=%20").as_deref(),
        Some(&b"GET /a?b=%20 HTTP/1.1\r\n"[..])
    );
}
