//! A certificate authority for one lab and a certificate for each end, made with `openssl`.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::netns::execute;

/// Writes the authority's certificate, a certificate of `identity` and its key into a `swanctl` directory. The
/// authority is created on the first call and kept in `lab`. `padding` makes the certificate that
/// many bytes longer.
pub(crate) fn install(lab: &Path, swanctl: &Path, identity: &str, padding: usize) -> Result<()> {
    let (authority, authority_key) = (lab.join("ca.pem"), lab.join("ca.key"));
    if !authority.exists() {
        let mut command = openssl(&authority_key);
        command.args([
            "-subj",
            "/CN=ikenat lab",
            "-addext",
            "basicConstraints=critical,CA:true",
        ]);
        execute(command.arg("-out").arg(&authority))?;
    }
    let mut command = openssl(&swanctl.join("private/own.pem"));
    command
        .args(["-subj", &format!("/CN={identity}")])
        .args(["-addext", &format!("subjectAltName=email:{identity}")])
        .arg("-CA")
        .arg(&authority)
        .arg("-CAkey")
        .arg(&authority_key)
        .arg("-out")
        .arg(swanctl.join("x509/own.pem"));
    if padding > 0 {
        // An extension that every implementation may ignore (Netscape's comment).
        command.args(["-addext", &format!("nsComment={}", "x".repeat(padding))]);
    }
    execute(&mut command)?;
    fs::copy(&authority, swanctl.join("x509ca/ca.pem")).context("failed to copy the authority")?;
    Ok(())
}

fn openssl(key: &Path) -> Command {
    let mut command = Command::new("openssl");
    command
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-sha256", "-days", "2",
        ])
        .arg("-keyout")
        .arg(key);
    command
}
