//! Random rows, and many spellings of the same JSON.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::resource::Resource;

use super::Rules;
use super::reference::Node;

const NAMES: [&str; 30] = [
    "ownerId",
    "teamId",
    "projectId",
    "missionId",
    "id",
    "createdAt",
    "_source",
    "_x",
    "title",
    "status",
    "notes",
    "accessToken",
    "password_hash",
    "tokenCount",
    "secretary",
    "tokenizer",
    "apiKey",
    "meta",
    "usage",
    "cost",
    "größe",
    "a\"b\\c",
    "",
    "pwd",
    "cookies",
    "made",
    "uuid",
    "user",
    "x",
    "meta.cost",
];
const INSTANTS: [&str; 9] = [
    "2026-01-02T03:04:05.678Z",
    "2026-01-02T03:04:05.678Z",
    "2026-01-02T03:04:05Z",
    "2026-01-02t03:04:05.6789123z",
    "2026-01-02T03:04:05.678+02:00",
    "1969-12-31T23:59:59.9994Z",
    "2026-02-30T00:00:00Z",
    "yesterday",
    "",
];

fn reference(good: &'static [&'static str]) -> impl Strategy<Value = Option<Node>> {
    prop_oneof![
        4 => Just(None),
        2 => Just(Some(Node::Null)),
        8 => select(good).prop_map(|id| Some(Node::Text(id.to_owned()))),
        1 => select(vec!["", "gone", "t9", "ü"]).prop_map(|id| Some(Node::Text(id.to_owned()))),
        1 => select(vec![Node::Bool(true), Node::Number(7.into()), Node::Array(vec![]), Node::Object(vec![])])
            .prop_map(Some),
    ]
}

pub(super) fn value() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        Just(Node::Null),
        any::<bool>().prop_map(Node::Bool),
        any::<i64>().prop_map(|n| Node::Number(n.into())),
        (-1000i32..1000).prop_map(|n| {
            Node::Number(serde_json::Number::from_f64(f64::from(n) / 16.0).unwrap())
        }),
        "\\PC{0,20}".prop_map(Node::Text),
        "[a-z \\\\\"\\n\u{1}\u{7f}é大😀]{0,40}".prop_map(Node::Text),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Node::Array),
            vec((select(NAMES.to_vec()), inner), 0..4).prop_map(|members| {
                Node::Object(
                    members
                        .into_iter()
                        .map(|(n, v)| (n.to_owned(), v))
                        .collect(),
                )
            }),
        ]
    })
}

pub(super) fn row() -> impl Strategy<Value = Node> {
    let id = prop_oneof![
        12 => "[a-z0-9-]{1,40}".prop_map(|id| Some(Node::Text(id))),
        2 => any::<i64>().prop_map(|id| Some(Node::Number(id.into()))),
        1 => select(vec![None, Some(Node::Null), Some(Node::Text(String::new())), Some(Node::Bool(true))]),
    ];
    let made = prop_oneof![
        12 => select(INSTANTS.to_vec()).prop_map(|at| Some(Node::Text(at.to_owned()))),
        1 => Just(None),
    ];
    let owned = (
        reference(&["u1", "u1", "u1", "u2"]),
        reference(&["t1", "t1", "t2"]),
        reference(&["p1", "p1", "p2", "p3", "p4"]),
        reference(&["m1", "m1", "m2", "m3", "m4", "m5", "m6", "m7"]),
    );
    let others = vec((select(NAMES[6..].to_vec()), value()), 0..5);
    let again = prop_oneof![9 => Just(None), 1 => (select(NAMES.to_vec()), value()).prop_map(Some)];
    let object = (id, made, owned, others, again, any::<u64>(), any::<bool>()).prop_map(
        |(id, made, (owner, team, project, mission), others, again, seed, renamed)| {
            let (id_name, made_name, owner_name) = if renamed {
                ("uuid", "made", "user")
            } else {
                ("id", "createdAt", "ownerId")
            };
            let named = [
                (id_name, id),
                (made_name, made),
                (owner_name, owner),
                ("teamId", team),
                ("projectId", project),
                ("missionId", mission),
            ];
            let mut members: Vec<_> = named
                .into_iter()
                .filter_map(|(name, value)| Some((name.to_owned(), value?)))
                .chain(
                    others
                        .into_iter()
                        .map(|(name, value)| (name.to_owned(), value)),
                )
                .chain(again.map(|(name, value)| (name.to_owned(), value)))
                .collect();
            // Most rows in the usual order, the rest in any.
            if seed.is_multiple_of(3) {
                let mut random = seed;
                members.sort_by_cached_key(|_| next(&mut random));
            }
            Node::Object(members)
        },
    );
    prop_oneof![15 => object, 1 => value()]
}

pub(super) fn rules() -> impl Strategy<Value = Rules> {
    (
        select(Resource::SERVED.to_vec()),
        any::<bool>(),
        select(vec![vec![], vec!["t1"], vec!["t1", "t2"], vec!["t2"]]),
        select(vec![vec![], vec!["title", "meta.cost", "usage"]]),
        select(vec![vec![], vec!["tokenCount", "x.apiKey"]]),
        select(vec![
            None,
            None,
            None,
            Some(("status", "x")),
            Some(("projectId", "p1")),
        ]),
        select(vec![None, None, None, Some("notes")]),
        select(vec![false, false, false, true]),
    )
        .prop_map(
            |(resource, include_personal, teams, fields, exempt, equals, non_empty, renamed)| {
                let mut rules = Rules::usual(resource);
                rules.include_personal = include_personal;
                rules.teams = teams;
                rules.fields = fields;
                rules.exempt = exempt;
                rules.equals = equals.into_iter().collect();
                rules.non_empty = non_empty;
                if renamed {
                    rules.map.id = "uuid".to_owned();
                    rules.map.created_at = "made".to_owned();
                    rules.map.owner = Some("user".to_owned());
                }
                rules
            },
        )
}

/// A number from a seed, which moves on.
pub(super) fn next(seed: &mut u64) -> u64 {
    *seed = seed
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Writes JSON in one of many spellings: space and escapes as the seed says. Seed 0 is the plain one.
pub(super) fn spell(node: &Node, seed: &mut u64, out: &mut String) {
    let varied = *seed != 0;
    let mut space = |out: &mut String| {
        if varied && next(seed).is_multiple_of(4) {
            out.push_str([" ", "\n", "\t", "\r\n  "][usize::try_from(next(seed) % 4).unwrap()]);
        }
    };
    space(out);
    match node {
        Node::Null => out.push_str("null"),
        Node::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Node::Number(value) => out.push_str(&value.to_string()),
        Node::Text(text) => spell_text(text, seed, out),
        Node::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                spell(item, seed, out);
            }
            out.push(']');
        }
        Node::Object(members) => {
            out.push('{');
            for (i, (name, value)) in members.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                spell_text(name, seed, out);
                out.push(':');
                spell(value, seed, out);
            }
            if varied && next(seed).is_multiple_of(4) {
                out.push('\n');
            }
            out.push('}');
        }
    }
}

fn spell_text(text: &str, seed: &mut u64, out: &mut String) {
    let varied = *seed != 0 && next(seed).is_multiple_of(3);
    out.push('"');
    for c in text.chars() {
        if varied && next(seed).is_multiple_of(5) {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
            continue;
        }
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c < ' ' => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}
