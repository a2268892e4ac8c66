//! Who signs the certificates of peers: the embedded authority, or a step-ca that the settings name.
//!
//! Invariant: certificates of peers are verified against the anchors of the one authority that issues them; those of our own
//! listeners come from the embedded one, whatever signs for peers, unless the settings name another provisioner of the step-ca.

use std::path::Path;
use std::sync::Arc;

use certs::ca::RotatingCa;
use certs::ca::step::{ProvisionerKey, StepSettings};
use certs::{CertificateAuthority, Clock, StepCa};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::config::{Ca, Tls};
use crate::enrollment::HttpsToStep;

use super::StartError;

/// The authorities of this process.
pub(super) struct Authorities {
    /// Signs for our own listeners.
    pub(super) servers: Arc<RotatingCa>,
    /// Signs for peers.
    pub(super) clients: Arc<dyn CertificateAuthority>,
    /// The same, where it is a step-ca.
    pub(super) step: Option<Arc<StepCa>>,
    /// Signs for our own listeners in place of the embedded one.
    pub(super) listeners: Option<Arc<StepCa>>,
}

impl Authorities {
    /// Those of the settings; nothing is asked yet.
    ///
    /// # Errors
    /// [`StartError::Authority`] when a file cannot be read or is not what it should be.
    pub(super) fn open(
        settings: &Ca,
        tls: &Tls,
        embedded: Arc<RotatingCa>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StartError> {
        let Ca::Step {
            origin,
            root_file,
            provisioner,
            key_file,
            password_file,
        } = settings
        else {
            return Ok(Self {
                clients: Arc::clone(&embedded) as Arc<dyn CertificateAuthority>,
                servers: embedded,
                step: None,
                listeners: None,
            });
        };
        let at = At { origin, root_file };
        let step = at.provisioner(provisioner, key_file, password_file.as_deref(), &clock)?;
        let listeners = tls
            .step
            .as_ref()
            .map(|of| {
                let password = of.password_file.as_deref();
                at.provisioner(&of.provisioner, &of.key_file, password, &clock)
            })
            .transpose()?;
        let step = Arc::new(step);
        Ok(Self {
            servers: embedded,
            clients: Arc::clone(&step) as Arc<dyn CertificateAuthority>,
            step: Some(step),
            listeners: listeners.map(Arc::new),
        })
    }
}

/// A step-ca, before it is known as whom it is asked.
struct At<'a> {
    origin: &'a str,
    root_file: &'a Path,
}

impl At<'_> {
    fn provisioner(
        &self,
        name: &str,
        key_file: &Path,
        password_file: Option<&Path>,
        clock: &Arc<dyn Clock>,
    ) -> Result<StepCa, StartError> {
        let root = read(self.root_file)?;
        let root = CertificateDer::from_pem_slice(&root).map_err(|error| {
            let file = self.root_file.display();
            StartError::Authority(format!("`{file}` holds no PEM certificate: {error}"))
        })?;
        let password = password_file.map(read).transpose()?;
        let password = password.as_ref().map(|text| text.trim_ascii_end());
        let text = read(key_file)?;
        let text = std::str::from_utf8(&text)
            .map_err(|_| StartError::Authority(format!("`{}` is not text", key_file.display())))?;
        let key = ProvisionerKey::parse(text, password).map_err(|error| {
            StartError::Authority(format!("the key in `{}`: {error}", key_file.display()))
        })?;
        let transport = HttpsToStep::new(self.origin, root.clone(), Arc::clone(clock))
            .map_err(StartError::Authority)?;
        let settings = StepSettings {
            origin: self.origin.to_owned(),
            provisioner: name.to_owned(),
            key,
            root,
        };
        StepCa::new(settings, Arc::new(transport))
            .map_err(|error| StartError::Authority(error.to_string()))
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, StartError> {
    std::fs::read(path).map(Zeroizing::new).map_err(|error| {
        StartError::Authority(format!("`{}` cannot be read: {error}", path.display()))
    })
}
