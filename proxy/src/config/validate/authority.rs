//! The `[ca]` section: what a step-ca needs, and that nothing is set for one that is not asked.

use super::super::url::bare_origin;
use super::super::{Ca, TlsStep, settings};
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

    /// The provisioner that our listeners' certificate comes from: whole, beside nothing else, and with a step-ca to ask.
    pub(super) fn tls_step(
        &mut self,
        section: &settings::Tls,
        ca: &settings::Ca,
        serves: bool,
    ) -> Option<TlsStep> {
        let (name, key) = (&section.step_ca_provisioner, &section.step_ca_key_file);
        let mut wrong = |key: &str, message: &str, hint: &str| {
            self.add(key, message.to_owned(), hint);
        };
        let (Some(name), Some(key)) = (name, key) else {
            let both = "name the provisioner and its key, or neither";
            if name.is_some() {
                wrong(
                    "tls.step_ca_provisioner",
                    "is set without tls.step_ca_key_file",
                    both,
                );
            }
            if key.is_some() {
                wrong(
                    "tls.step_ca_key_file",
                    "is set without tls.step_ca_provisioner",
                    both,
                );
            }
            if section.step_ca_password_file.is_some() {
                let message = "has no effect without tls.step_ca_key_file";
                wrong("tls.step_ca_password_file", message, both);
            }
            return None;
        };
        if !serves {
            let message = "has no effect without roles.serve: there is no listener for it";
            let hint = "remove it, or switch roles.serve on";
            wrong("tls.step_ca_provisioner", message, hint);
        }
        if name.is_empty() {
            wrong("tls.step_ca_provisioner", "is empty", "name it");
        }
        if section.certificate_file.is_some() || section.key_file.is_some() {
            let message = "is set beside tls.certificate_file or tls.key_file";
            let hint =
                "the certificate comes from files or from the step-ca: remove one of the two";
            wrong("tls.step_ca_provisioner", message, hint);
        }
        if !matches!(ca.backend, settings::CaBackend::StepCa) {
            let message = "has no effect with ca.backend = \"embedded\"";
            let hint = "remove it, or set ca.backend = \"step-ca\"";
            wrong("tls.step_ca_provisioner", message, hint);
        }
        if *name == ca.provisioner.as_deref().unwrap_or(PROVISIONER) {
            let message = "is the provisioner of [ca], whose template is for peers alone";
            let hint =
                "add one to the step-ca for servers, with the template compose/step-ca/server.tpl";
            wrong("tls.step_ca_provisioner", message, hint);
        }
        let password = section.step_ca_password_file.as_deref();
        Some(TlsStep {
            provisioner: name.clone(),
            key_file: self.path("tls.step_ca_key_file", key),
            password_file: password.map(|file| self.path("tls.step_ca_password_file", file)),
        })
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
