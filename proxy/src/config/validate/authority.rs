//! The `[ca]` section: what a step-ca needs, and that nothing is set for one that is not asked.

use super::super::url::bare_origin;
use super::super::{Ca, settings};
use super::Check;

/// The provisioner's name when none is set.
const PROVISIONER: &str = "mosaic-fed";

impl Check<'_> {
    pub(super) fn ca(&mut self, section: &settings::Ca) -> Option<Ca> {
        match section.backend {
            settings::CaBackend::Embedded => {
                self.nothing_for_step(section);
                Some(Ca::Embedded)
            }
            settings::CaBackend::StepCa => self.step(section),
        }
    }

    fn nothing_for_step(&mut self, section: &settings::Ca) {
        for (key, set) in [
            ("ca.url", section.url.is_some()),
            ("ca.root_file", section.root_file.is_some()),
            ("ca.provisioner", section.provisioner.is_some()),
            ("ca.key_file", section.key_file.is_some()),
            ("ca.password_file", section.password_file.is_some()),
        ] {
            if set {
                let message = "has no effect with ca.backend = \"embedded\"".to_owned();
                self.add(key, message, "remove it, or set ca.backend = \"step-ca\"");
            }
        }
    }

    fn step(&mut self, section: &settings::Ca) -> Option<Ca> {
        let mut need = |key: &str, value: &Option<String>, hint: &str| {
            let value = value.as_deref().filter(|value| !value.is_empty());
            if value.is_none() {
                let message = "is required with ca.backend = \"step-ca\"".to_owned();
                self.add(key, message, hint);
            }
            value.map(str::to_owned)
        };
        let url = need(
            "ca.url",
            &section.url,
            "set it to the CA's origin, as https://host:9000",
        );
        let root = need(
            "ca.root_file",
            &section.root_file,
            "name the file; `step ca root` writes it",
        );
        let key = need(
            "ca.key_file",
            &section.key_file,
            "name the file with the provisioner's JWK",
        );
        let origin = url.and_then(|url| match origin_of(&url) {
            Ok(origin) => Some(origin),
            Err(message) => {
                self.add("ca.url", message, "write it as https://host:9000");
                None
            }
        });
        let provisioner = section.provisioner.as_deref().unwrap_or(PROVISIONER);
        if provisioner.is_empty() {
            self.add("ca.provisioner", "is empty".to_owned(), "name it");
        }
        let root_file = self.path("ca.root_file", &root?);
        let key_file = self.path("ca.key_file", &key?);
        let password_file = section
            .password_file
            .as_deref()
            .map(|file| self.path("ca.password_file", file));
        Some(Ca::Step {
            origin: origin?,
            root_file,
            provisioner: provisioner.to_owned(),
            key_file,
            password_file,
        })
    }
}

/// The origin of an https URL without a path.
fn origin_of(url: &str) -> Result<String, String> {
    let (_, authority) = bare_origin(url, &["https"])?;
    Ok(format!("https://{authority}"))
}
