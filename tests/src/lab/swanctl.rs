//! The configuration files of the two strongSwan daemons.

use std::path::Path;

use super::strongswan::{Authentication, CHILD, End, Ends, Settings, Version};

/// The size of IKE fragments where none are made.
const UNUSED: u32 = 1280;

/// What the daemon reads when it starts.
pub(crate) fn daemon(directory: &Path, settings: Settings) -> String {
    // Only what the lab needs is loaded: kernel-libipsec must be the one that does ESP.
    format!(
        "charon-systemd {{
           load_modular = no
           load = random nonce aes sha1 sha2 hmac kdf curve25519 gmp mgf1 pem pkcs1 pkcs8 x509 \
                  pubkey constraints kernel-libipsec kernel-netlink socket-default vici
           fragment_size = {fragment_size}
           keep_alive = {keep_alive}
           retransmit_timeout = 1
           retransmit_tries = 4
           filelog {{ stderr {{ default = 1
               flush_line = yes
               time_format = %T }} }}
           journal {{ default = -1 }}
           plugins {{ vici {{ socket = unix://{socket} }} }}
         }}
         swanctl {{ load = pem pkcs1 pkcs8 x509 gmp sha1 sha2 random }}\n",
        fragment_size = settings.fragment_size.unwrap_or(UNUSED),
        keep_alive = settings.keep_alive_secs,
        socket = directory.join("vici").display(),
    )
}

/// The connection, as `swanctl --load-all` loads it. The files of several tunnels, one after the
/// other, are the configuration of a responder that has them all.
pub(crate) fn connection(ends: &Ends<'_>, end: End, settings: Settings) -> String {
    let [client, server] = &ends.identities();
    let connection = ends.connection();
    let (local, remote, from, to, inner_local, inner_remote) = match end {
        End::Client => (
            client,
            server,
            ends.addresses[0].to_string(),
            ends.responder.to_string(),
            ends.inner[0],
            ends.inner[1],
        ),
        End::Server => (
            server,
            client,
            ends.addresses[1].to_string(),
            "%any".into(),
            ends.inner[1],
            ends.inner[0],
        ),
    };
    // The first is what every IKEv1 peer has; curve25519 is quick.
    let (version, proposal) = match settings.version {
        Version::V1 => (1, "aes128-sha256-modp2048"),
        Version::V2 => (2, "aes128-sha256-x25519"),
    };
    let (method, certificate, send) = match settings.authentication {
        Authentication::Psk => ("psk", "", ""),
        Authentication::Certificates => ("pubkey", "certs = own.pem", "send_cert = always"),
    };
    let fragmentation = if settings.fragment_size.is_some() {
        "yes"
    } else {
        "no"
    };
    let mobike = if settings.mobike { "yes" } else { "no" };
    format!(
        "connections {{ {connection} {{
           version = {version}
           aggressive = no
           mobike = {mobike}
           fragmentation = {fragmentation}
           {send}
           local_addrs = {from}
           remote_addrs = {to}
           proposals = {proposal}
           local {{ auth = {method}
             {certificate}
             id = {local} }}
           remote {{ auth = {method}
             id = {remote} }}
           children {{ {CHILD} {{
             local_ts = {inner_local}/32
             remote_ts = {inner_remote}/32
             esp_proposals = aes128-sha256 }} }}
         }} }}
         secrets {{ ike-{connection} {{
           id-1 = {client}
           id-2 = {server}
           secret = only-for-the-lab }} }}\n"
    )
}
