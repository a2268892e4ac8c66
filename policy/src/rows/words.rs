//! Names that say secret.
//!
//! Invariant: the answer depends on the unescaped name alone, and errs towards removal. A name is cut into words on
//! case, `_`, `-` and `.`; digits and any other character that is no letter cut too, so `token2` and `api key` do not
//! slip through. Elsewhere on purpose: which names are exempt (`redact.rs`), unescaping (`text.rs`).

/// Sequences of words that mark a name wherever they occur in it, each word singular or plural.
const SEQUENCES: [&[&str]; 8] = [
    &["password"],
    &["secret"],
    &["token"],
    &["api", "key"],
    &["private", "key"],
    &["credential"],
    &["authorization"],
    &["cookie"],
];

/// Spellings without word boundaries that mark a name wherever they occur in it.
const SQUASHED: [&str; 6] = [
    "apikey",
    "accesstoken",
    "privatekey",
    "clientsecret",
    "password",
    "passwd",
];

/// Whether an unescaped member name says that its value is a secret (specification, section 6.3).
#[must_use]
pub fn says_secret(name: &str) -> bool {
    let squashed: String = name
        .chars()
        .filter(|c| c.is_alphanumeric())
        .flat_map(char::to_lowercase)
        .collect();
    if squashed == "pwd" || SQUASHED.iter().any(|listed| squashed.contains(listed)) {
        return true;
    }
    if !has_stem(&squashed) {
        return false;
    }
    let words = split_words(name);
    SEQUENCES.iter().any(|listed| {
        words.windows(listed.len()).any(|found| {
            found
                .iter()
                .zip(*listed)
                .all(|(word, one)| is_one_or_many(word, one))
        })
    })
}

/// Whether any listed sequence can be there at all: each ends in letters that squashing keeps together. Most names
/// need no more than this look.
fn has_stem(squashed: &str) -> bool {
    let bytes = squashed.as_bytes();
    bytes.iter().enumerate().any(|(at, first)| {
        let stem: &[u8] = match first {
            b't' => b"token",
            b's' => b"secret",
            b'k' => b"key",
            b'p' => b"password",
            b'a' => b"authorization",
            b'c' => {
                let rest = bytes.get(at..).unwrap_or_default();
                return rest.starts_with(b"credential") || rest.starts_with(b"cookie");
            }
            _ => return false,
        };
        bytes.get(at..).is_some_and(|rest| rest.starts_with(stem))
    })
}

/// `word` is `one`, or `one` with a plural s.
fn is_one_or_many(word: &str, one: &str) -> bool {
    word.strip_prefix(one)
        .is_some_and(|rest| matches!(rest, "" | "s"))
}

/// The words of a name in lower case: `HTTPSToken-id` is `https`, `token`, `id`.
fn split_words(name: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut before: Option<char> = None;
    let mut rest = name.chars();
    while let Some(c) = rest.next() {
        if !c.is_alphabetic() {
            words.extend((!word.is_empty()).then(|| std::mem::take(&mut word)));
            before = None;
            continue;
        }
        if begins_word(before, c, rest.clone()) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        word.extend(c.to_lowercase());
        before = Some(c);
    }
    words.extend((!word.is_empty()).then_some(word));
    words
}

/// Whether case alone says that `c` begins a word: `accessToken`, and `IDToken` but not `TOKENs`.
fn begins_word(before: Option<char>, c: char, mut after: std::str::Chars<'_>) -> bool {
    let is_lower = |c: char| c.is_alphabetic() && !c.is_uppercase();
    if !c.is_uppercase() {
        return false;
    }
    if before.is_some_and(is_lower) {
        return true;
    }
    let Some(next) = after.next().filter(|next| is_lower(*next)) else {
        return false;
    };
    // A lone s after capitals is their plural, not the second letter of a word.
    next != 's' || after.next().is_some_and(is_lower)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_say_secret() {
        for name in [
            "accessToken",
            "password_hash",
            "tokenCount",
            "password",
            "passwords",
            "secret",
            "clientSecrets",
            "client_secret",
            "TOKEN",
            "TOKENs",
            "IDToken",
            "refresh-token",
            "auth.token.value",
            "apiKey",
            "APIKey",
            "API_KEYS",
            "api.keys",
            "api-key",
            "api key",
            "myapikey",
            "x_apikey_y",
            "A.P.I.K.E.Y",
            "privateKey",
            "ssh_private_keys",
            "privatekeypem",
            "credential",
            "userCredentials",
            "Authorization",
            "proxy-authorization",
            "cookie",
            "set-cookie",
            "sessionCookies",
            "accesstokenvalue",
            "clientsecretid",
            "dbpasswordhash",
            "passwd",
            "oldpasswd2",
            "pwd",
            "PWD",
            "p_w_d",
            "token2",
            "2token",
            "oauth2Token",
            "PASSWORD",
            "api\u{212a}ey",
        ] {
            assert!(says_secret(name), "{name}");
        }
    }

    #[test]
    fn names_that_do_not() {
        for name in [
            "",
            "secretary",
            "tokenizer",
            "tokenize",
            "secretariat",
            "cookiecutter",
            "key",
            "api",
            "keyApi",
            "publicKey",
            "apiVersionKey",
            "pwd2",
            "cwd",
            "author",
            "authorize",
            "title",
            "createdAt",
            "monkey",
            "passenger",
            "sortKey",
            "éclair",
            "日本語",
        ] {
            assert!(!says_secret(name), "{name}");
        }
    }

    #[test]
    fn words_of_names() {
        assert_eq!(split_words("HTTPSToken-id"), ["https", "token", "id"]);
        assert_eq!(split_words("userIDsByName"), ["user", "ids", "by", "name"]);
        assert_eq!(split_words("__a..b--C9d"), ["a", "b", "c", "d"]);
        assert_eq!(split_words("_"), Vec::<String>::new());
    }
}
