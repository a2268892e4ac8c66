//! An endpoint that passes everything on to the peer, or plays something else in its place.
//!
//! Invariant: connections that are open when the play changes are cut, so that the next question meets the new one.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use certs::testing::Minted;

/// How often it is tried to listen where something else did, and how long apart.
const LOOKS: u32 = 1_000;
const APART: Duration = Duration::from_millis(20);

/// What is waited for before anything is said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// Nothing.
    Once,
    /// The first bytes of the client.
    Hello,
    /// The head and body of a request, in either protocol.
    Request,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order: under TLS with `close_notify`.
    Closed,
    /// The stream ends without a word of TLS.
    Cut,
    /// With a reset.
    Reset,
    /// Not at all.
    Silent,
}

/// What is played.
#[derive(Clone)]
pub enum Play {
    /// Nothing: everything is passed on.
    Relay,
    /// Nobody listens.
    Nobody,
    /// Bytes, under this TLS or none.
    Say {
        tls: Option<Arc<ServerConfig>>,
        after: After,
        bytes: Vec<u8>,
        end: End,
    },
}

/// The endpoint.
pub struct Stage {
    pub address: SocketAddr,
    far: SocketAddr,
    play: watch::Sender<Play>,
    accepting: Option<JoinHandle<()>>,
    /// Bound and never listening: while nobody listens, the system gives the port to no connection.
    _place: TcpSocket,
}

/// A socket that is bound there, beside others that do not listen.
fn bound(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Listens there. The listener of the play before lives for a moment longer in a process that another test has just forked.
async fn listening(address: SocketAddr) -> TcpListener {
    for _ in 0..LOOKS {
        match bound(address).and_then(|socket| socket.listen(1_024)) {
            Ok(listener) => return listener,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}"),
        }
        tokio::time::sleep(APART).await;
    }
    panic!("somebody else listens at {address}");
}

impl Stage {
    /// Before `far`, passing everything on at first.
    pub async fn before(far: SocketAddr) -> Self {
        let place = bound(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = place.local_addr().unwrap();
        let listener = listening(address).await;
        let (play, _) = watch::channel(Play::Relay);
        let accepting = Some(tokio::spawn(accept(listener, far, play.subscribe())));
        Self {
            address,
            far,
            play,
            accepting,
            _place: place,
        }
    }

    /// Plays this from now on.
    pub async fn play(&mut self, play: Play) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // The port is free once the task is gone.
            assert!(accepting.await.is_err());
        }
        let nobody = matches!(play, Play::Nobody);
        self.play.send_replace(play);
        if !nobody {
            let listener = listening(self.address).await;
            let playing = accept(listener, self.far, self.play.subscribe());
            self.accepting = Some(tokio::spawn(playing));
        }
    }
}

async fn accept(listener: TcpListener, far: SocketAddr, mut play: watch::Receiver<Play>) {
    let current = play.borrow_and_update().clone();
    loop {
        let (socket, _) = listener.accept().await.unwrap();
        let (current, mut changes) = (current.clone(), play.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = act(socket, far, current) => {}
                _ = changes.changed() => {}
            }
        });
    }
}

async fn act(mut socket: TcpStream, far: SocketAddr, play: Play) {
    match play {
        Play::Nobody => {}
        Play::Relay => {
            if let Ok(mut far) = TcpStream::connect(far).await {
                // Either end may go first.
                let _ended = tokio::io::copy_bidirectional(&mut socket, &mut far).await;
            }
        }
        Play::Say {
            tls: None,
            after,
            bytes,
            end,
        } => {
            say(&mut socket, after, &bytes, end).await;
            finish(socket, end).await;
        }
        Play::Say {
            tls: Some(config),
            after,
            bytes,
            end,
        } => {
            // A handshake that fails is a part of the play.
            if let Ok(mut stream) = TlsAcceptor::from(config).accept(socket).await {
                say(&mut stream, after, &bytes, end).await;
                finish(stream.into_inner().0, end).await;
            }
        }
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    after: After,
    bytes: &[u8],
    end: End,
) {
    let mut heard = Vec::new();
    while !is_heard(&heard, after) {
        match stream.read_buf(&mut heard).await {
            Ok(read) if read > 0 => {}
            _ => return,
        }
    }
    // Who has gone already is not told.
    let _told = stream.write_all(bytes).await;
    let _flushed = stream.flush().await;
    if end == End::Closed {
        let _closed = stream.shutdown().await;
    }
}

fn is_heard(heard: &[u8], after: After) -> bool {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    match after {
        After::Once => true,
        After::Hello => !heard.is_empty(),
        After::Request if heard.starts_with(b"PRI") => {
            heard.len() > PREFACE.len() && has_headers(&heard[PREFACE.len()..])
        }
        // The questions of these tests end with their body.
        After::Request => heard.windows(6).any(|part| part == b"\r\n\r\n{}"),
    }
}

/// Whether a HEADERS frame is whole.
fn has_headers(mut frames: &[u8]) -> bool {
    while frames.len() >= 9 {
        let length =
            usize::from(frames[0]) << 16 | usize::from(frames[1]) << 8 | usize::from(frames[2]);
        if frames.len() < 9 + length {
            return false;
        }
        if frames[3] == 1 {
            return true;
        }
        frames = &frames[9 + length..];
    }
    false
}

async fn finish(socket: TcpStream, end: End) {
    match end {
        End::Closed | End::Cut => {
            // What the other side still says is taken, or the kernel would answer with a reset.
            let mut socket = socket;
            let _shut = socket.shutdown().await;
            let mut rest = Vec::new();
            let read = socket.read_to_end(&mut rest);
            let _gone = tokio::time::timeout(Duration::from_secs(5), read).await;
        }
        End::Reset => {
            #[allow(deprecated, reason = "the way to make the close a reset")]
            socket.set_linger(Some(Duration::ZERO)).unwrap();
        }
        End::Silent => std::future::pending::<()>().await,
    }
}

/// TLS with this certificate, in one protocol of HTTP, which asks for no certificate of the client.
pub fn tls(minted: &Minted, alpn: &str) -> Arc<ServerConfig> {
    config(minted, alpn, None, &rustls::version::TLS13)
}

/// The same in TLS 1.2.
pub fn tls_1_2(minted: &Minted) -> Arc<ServerConfig> {
    config(minted, "http/1.1", None, &rustls::version::TLS12)
}

/// The same, which refuses every certificate of a client for this reason.
pub fn refusing(minted: &Minted, why: CertificateError) -> Arc<ServerConfig> {
    config(minted, "http/1.1", Some(why), &rustls::version::TLS13)
}

/// The same in HTTP/1.1, with this answer about the certificate stapled to it.
pub fn stapling(minted: &Minted, staple: Vec<u8>) -> Arc<ServerConfig> {
    let mut config =
        ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert_with_ocsp(minted.chain.clone(), minted.key_der(), staple)
            .unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

fn config(
    minted: &Minted,
    alpn: &str,
    refuses: Option<CertificateError>,
    version: &'static rustls::SupportedProtocolVersion,
) -> Arc<ServerConfig> {
    let builder =
        ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
            .with_protocol_versions(&[version])
            .unwrap();
    let builder = match refuses {
        None => builder.with_no_client_auth(),
        Some(why) => builder.with_client_cert_verifier(Arc::new(Refusing(why))),
    };
    let mut config = builder
        .with_single_cert(minted.chain.clone(), minted.key_der())
        .unwrap();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    Arc::new(config)
}

#[derive(Debug)]
struct Refusing(CertificateError);

impl ClientCertVerifier for Refusing {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Err(self.0.clone().into())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        rustls::crypto::aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}
