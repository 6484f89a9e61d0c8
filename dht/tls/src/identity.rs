//! Who we are, as TLS wants it said.

use std::fmt;
use std::sync::Arc;

use deadwax_dht::{NodeId, NodeKey};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage, UnbufferedServerConnection};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use crate::session::Session;
use crate::verify::{self, AnyKey};

/// What stands before the 32 secret bytes of an Ed25519 key in a PKCS #8 file (RFC 8410, section 7).
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
/// The name of the protocol within TLS (RFC 7301): nobody takes a connection for one of another kind.
const PROTOCOL: &[u8] = b"deadwax";
/// TLS wants a name for whom one calls. It is not sent and not looked at: who answers is told by its key.
const NOBODY: &str = "node.invalid";

/// A key, ready for sessions. Cheap to clone; equal where the key is.
#[derive(Clone)]
pub struct Identity {
    id: NodeId,
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Identity {
    /// Whoever has `key`.
    ///
    /// # Panics
    /// Never, with what rustls and ring promise of any Ed25519 key.
    #[must_use]
    pub fn new(key: &NodeKey) -> Self {
        let provider = Arc::new(provider());
        let pkcs8 = PrivatePkcs8KeyDer::from([&PKCS8_HEAD[..], &key.to_bytes()].concat());
        let signing = ring::sign::any_eddsa_type(&pkcs8).expect("any 32 bytes are an Ed25519 key");
        let public = CertificateDer::from(verify::spki(&key.public()));
        let certified = Arc::new(CertifiedKey::new(vec![public], signing));
        let verifier = AnyKey::new(provider.signature_verification_algorithms);

        let client = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&TLS13]);
        let mut client = client
            .expect("the provider has suites of TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::clone(&certified))));
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        client.alpn_protocols = vec![PROTOCOL.to_vec()];

        let server = ServerConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
        let mut server = server
            .expect("the provider has suites of TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.alpn_protocols = vec![PROTOCOL.to_vec()];

        Self { id: key.node_id(), client: Arc::new(client), server: Arc::new(server) }
    }

    /// The key's name.
    #[must_use]
    pub const fn id(&self) -> &NodeId {
        &self.id
    }

    /// The end of a connection that this side opened.
    ///
    /// # Panics
    /// Never, as [`new`](Self::new).
    #[must_use]
    pub fn connect(&self) -> Session {
        let nobody = ServerName::try_from(NOBODY).expect("a name");
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.client), nobody);
        Session::client(connection.expect("settings that are good for one are for all"))
    }

    /// The end of a connection that this side accepted.
    ///
    /// # Panics
    /// Never, as [`new`](Self::new).
    #[must_use]
    pub fn accept(&self) -> Session {
        let connection = UnbufferedServerConnection::new(Arc::clone(&self.server));
        Session::server(connection.expect("settings that are good for one are for all"))
    }
}

/// AES-128-GCM first: any server's processor has instructions for it, and what is protected are tracks.
fn provider() -> CryptoProvider {
    let suites = [ring::cipher_suite::TLS13_AES_128_GCM_SHA256, ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256];
    CryptoProvider {
        cipher_suites: suites.to_vec(),
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Identity {}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, secret not shown)", self.id)
    }
}
