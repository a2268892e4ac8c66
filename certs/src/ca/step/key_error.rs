//! Why a provisioner key cannot be used.
//!
//! Invariant: no text of a key is in an error.

/// Why a provisioner key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionerKeyError {
    /// The text is neither a private JWK nor one encrypted as JWE.
    #[error("the text is neither a private JWK nor a JWE that holds one: {why}")]
    Malformed {
        /// What is wrong.
        why: String,
    },
    /// A key that both sides would have to know.
    #[error(
        "the key is symmetric (`kty` is `oct`), and anyone who can verify its tokens can make them: create the provisioner with an EC, OKP or RSA key"
    )]
    Symmetric,
    /// A kind of key that is not supported.
    #[error(
        "the key is {kind}, and provisioner keys are EC (P-256, P-384, P-521), OKP (Ed25519) or RSA of 2048 bits and more"
    )]
    Unsupported {
        /// What it is.
        kind: String,
    },
    /// The key's parts do not belong together.
    #[error("the private and the public part of the key do not belong together")]
    Inconsistent,
    /// The key is encrypted and no password was given.
    #[error("the key is encrypted (JWE): give its password")]
    PasswordMissing,
    /// The password does not open the key.
    #[error("the password does not open the key, or the file is damaged")]
    WrongPassword,
    /// The encryption is of a form that is not supported.
    #[error(
        "the key is encrypted with {what}, which is not supported: it must be PBES2-HS256+A128KW or PBES2-HS512+A256KW with A128GCM or A256GCM, as `step` writes it"
    )]
    UnsupportedEncryption {
        /// The algorithm or parameter.
        what: String,
    },
}

pub(super) fn malformed(why: &str) -> ProvisionerKeyError {
    ProvisionerKeyError::Malformed {
        why: why.to_owned(),
    }
}
