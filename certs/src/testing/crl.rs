//! Revocation lists for tests, good ones and ones with any defect wanted, written byte by byte.

use rcgen::SigningKey as _;

use super::TestCa;
use super::ca::{DAY, date};
use super::der::tlv;
use crate::clock::{Clock, SystemClock};
use crate::identity::{self, Serial};
use crate::trust::pem_section;

/// ecdsa-with-SHA256.
const ALGORITHM: [u8; 12] = [0x30, 10, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2];
/// The content of the object identifier of cRLNumber.
pub const CRL_NUMBER: [u8; 3] = [0x55, 0x1d, 20];

/// A revocation list in the making. Starts as a good one that lists nothing.
#[derive(Debug, Clone)]
pub struct CrlMint {
    window: (i64, Option<i64>),
    entries: Vec<Vec<u8>>,
    extensions: Vec<Vec<u8>>,
    number: Option<u64>,
    version: Vec<u8>,
    after: Vec<u8>,
}

impl CrlMint {
    /// List number `number`, made a minute ago and good for a day.
    #[must_use]
    pub fn number(number: u64) -> Self {
        let now = SystemClock.unix_seconds();
        Self {
            window: (now - 60, Some(now + DAY)),
            entries: Vec::new(),
            extensions: Vec::new(),
            number: Some(number),
            version: vec![2, 1, 1],
            after: Vec::new(),
        }
    }

    /// thisUpdate and nextUpdate, Unix seconds.
    #[must_use]
    pub fn window(self, this_update: i64, next_update: impl Into<Option<i64>>) -> Self {
        Self {
            window: (this_update, next_update.into()),
            ..self
        }
    }

    /// Without a number.
    #[must_use]
    pub fn without_number(self) -> Self {
        Self {
            number: None,
            ..self
        }
    }

    /// Lists a certificate without a reason.
    #[must_use]
    pub fn revoke(self, serial: &Serial) -> Self {
        self.revoke_with(serial, &[])
    }

    /// Lists a certificate for the reason with this code.
    #[must_use]
    pub fn revoke_for(self, serial: &Serial, code: u8) -> Self {
        let reason = extension(&[0x55, 0x1d, 21], false, &tlv(0x0a, &[code]));
        self.revoke_with(serial, &reason)
    }

    /// Lists a certificate with these extensions of the entry (DER, one after another).
    #[must_use]
    pub fn revoke_with(mut self, serial: &Serial, extensions: &[u8]) -> Self {
        let mut magnitude = hex::decode(serial.as_str()).unwrap();
        if magnitude[0] & 0x80 != 0 {
            magnitude.insert(0, 0);
        }
        let mut entry = [tlv(0x02, &magnitude), time(self.window.0)].concat();
        if !extensions.is_empty() {
            entry.extend(tlv(0x30, extensions));
        }
        self.entries.push(tlv(0x30, &entry));
        self
    }

    /// With one more extension of the list.
    #[must_use]
    pub fn extension(mut self, oid: &[u8], critical: bool, value: &[u8]) -> Self {
        self.extensions.push(extension(oid, critical, value));
        self
    }

    /// With something else in place of the version.
    #[must_use]
    pub fn version(self, der: &[u8]) -> Self {
        Self {
            version: der.to_vec(),
            ..self
        }
    }

    /// With something at the end of what is signed.
    #[must_use]
    pub fn trailing(self, der: &[u8]) -> Self {
        Self {
            after: der.to_vec(),
            ..self
        }
    }

    /// Signs it in the name of `ca`: DER.
    #[must_use]
    pub fn sign_with(&self, ca: &TestCa) -> Vec<u8> {
        self.sign_as(ca, ca)
    }

    /// Signs it with the key of `ca` in the name of `named`: DER.
    #[must_use]
    pub fn sign_as(&self, ca: &TestCa, named: &TestCa) -> Vec<u8> {
        let issuer = identity::parse(named.der()).unwrap();
        let mut content = self.version.clone();
        content.extend(ALGORITHM);
        content.extend(issuer.subject().as_raw());
        content.extend(time(self.window.0));
        content.extend(self.window.1.map(time).unwrap_or_default());
        if !self.entries.is_empty() {
            content.extend(tlv(0x30, &self.entries.concat()));
        }
        let mut extensions = self.extensions.concat();
        if let Some(number) = self.number {
            let octets = [&[0], number.to_be_bytes().as_slice()].concat();
            let zeros = octets
                .windows(2)
                .take_while(|pair| pair[0] == 0 && pair[1] & 0x80 == 0);
            let zeros = zeros.count();
            extensions.extend(extension(&CRL_NUMBER, false, &tlv(0x02, &octets[zeros..])));
        }
        if !extensions.is_empty() {
            content.extend(tlv(0xa0, &tlv(0x30, &extensions)));
        }
        content.extend(&self.after);
        let content = tlv(0x30, &content);
        let signature = ca.key.sign(&content).unwrap();
        let signature = tlv(0x03, &[&[0], signature.as_slice()].concat());
        tlv(0x30, &[content, ALGORITHM.to_vec(), signature].concat())
    }
}

/// A list in DER as PEM.
#[must_use]
pub fn crl_pem(der: &[u8]) -> String {
    pem_section("X509 CRL", der)
}

fn extension(oid: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let mut content = tlv(0x06, oid);
    if critical {
        content.extend([1, 1, 0xff]);
    }
    content.extend(tlv(0x04, value));
    tlv(0x30, &content)
}

fn time(seconds: i64) -> Vec<u8> {
    let at = date(seconds);
    let text = format!(
        "{:02}{:02}{:02}{:02}{:02}{:02}Z",
        at.year() % 100,
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second()
    );
    tlv(0x17, text.as_bytes())
}
