//! Rows of an upstream gateway's peers.

use openssl::hash::MessageDigest;
use openssl::symm::{Cipher, encrypt_aead};

/// The gateway's secret.
pub const SECRET: &str = "a-better-auth-secret-of-the-gateway";

/// Seals as the gateway does, by another implementation than ours.
pub fn sealed(secret: &str, plain: &str) -> String {
    let key = openssl::hash::hash(MessageDigest::sha256(), secret.as_bytes()).unwrap();
    let (iv, mut tag) = ([7; 12], [0; 16]);
    let text = encrypt_aead(
        Cipher::aes_256_gcm(),
        &key,
        Some(&iv),
        &[],
        plain.as_bytes(),
        &mut tag,
    );
    openssl::base64::encode_block(&[&iv[..], &tag, &text.unwrap()].concat())
}
