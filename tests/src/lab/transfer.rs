//! A large TCP transfer through a tunnel, compared byte by byte at the other end.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};

use super::netns::Namespace;

/// A transfer without progress for this long has stalled. After several losses in a row TCP itself
/// waits longer.
const STALLED: Duration = Duration::from_secs(5);
/// Written and read at once.
const BLOCK: usize = 1 << 16;

/// Sends `length` bytes from one namespace to an address in another, and fails unless all of them
/// arrive unchanged.
pub fn transfer(
    (sender, receiver): (&Namespace, &Namespace),
    to: Ipv4Addr,
    length: usize,
) -> Result<()> {
    let listener = receiver.enter(|| {
        TcpListener::bind(SocketAddrV4::new(to, 0))
            .with_context(|| format!("failed to listen on {to}"))
    })?;
    let address = listener.local_addr()?;
    let mut stream = sender.enter(|| {
        TcpStream::connect_timeout(&address, STALLED)
            .with_context(|| format!("failed to connect to {address}"))
    })?;
    let (mut accepted, _) = listener.accept().context("failed to accept")?;
    send_all((&mut stream, &mut accepted), length)
}

/// Sends `length` bytes over a connection and closes it for more, and fails unless all of them arrive
/// unchanged.
pub fn send_all((stream, accepted): (&mut TcpStream, &mut TcpStream), length: usize) -> Result<()> {
    for socket in [&*stream, &*accepted] {
        socket.set_read_timeout(Some(STALLED))?;
        socket.set_write_timeout(Some(STALLED))?;
    }
    std::thread::scope(|scope| {
        let sending = scope.spawn(move || -> Result<()> {
            let mut at = 0;
            while at < length {
                let block = block(at, BLOCK.min(length - at));
                stream
                    .write_all(&block)
                    .with_context(|| format!("failed to send behind byte {at}"))?;
                at += block.len();
            }
            stream
                .shutdown(Shutdown::Write)
                .context("failed to close the connection")
        });
        let mut at = 0;
        let mut bytes = vec![0; BLOCK];
        loop {
            let count = accepted
                .read(&mut bytes)
                .with_context(|| format!("the transfer stalled behind byte {at} of {length}"))?;
            if count == 0 {
                break;
            }
            ensure!(
                bytes[..count] == block(at, count),
                "other bytes arrived behind byte {at}"
            );
            at += count;
        }
        sending
            .join()
            .map_err(|_| anyhow!("the sender panicked"))??;
        ensure!(at == length, "{at} of {length} bytes arrived");
        Ok(())
    })
}

/// The bytes from position `at` on: they differ at every position, so a lost or repeated part is
/// detected.
fn block(at: usize, length: usize) -> Vec<u8> {
    (at..at + length)
        .map(|place| {
            let word = place as u64 / 8;
            let mixed = (word ^ word >> 13).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            mixed.to_le_bytes()[place % 8]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_parts_of_one_stream() {
        let whole = block(0, 5000);
        assert_eq!(block(0, 17), whole[..17]);
        assert_eq!(block(4099, 300), whole[4099..4399]);
        assert_ne!(block(8, 64), block(16, 64));
    }
}
