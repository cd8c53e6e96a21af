//! A connection that changed its protocol (a WebSocket): bytes both ways until both ends have closed.

use super::exchange::Upgraded;
use super::socket::{Reader, Writer};
use super::timer::Timer;
use bytes::{Bytes, BytesMut};
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// One read of a tunnel.
const BUFFER: usize = 16 * 1024;

/// One end broke.
struct Broken;

/// Passes bytes until both ends have closed, or one breaks: then the other is reset. `early` is what the client sent
/// ahead of the switch.
pub(super) async fn run(
    upgraded: Upgraded,
    mut client_reader: Box<Reader>,
    client_writer: &mut Writer,
    early: Bytes,
    patience: Duration,
) {
    let Upgraded { lease, mut reader, mut writer, early: replica_early } = upgraded;
    client_writer.keep_alive();
    writer.keep_alive();
    let up = copy(&mut client_reader, &mut writer, early, patience);
    let down = copy(&mut reader, client_writer, replica_early, patience);
    if tokio::try_join!(up, down).is_err() {
        client_writer.reset();
        writer.reset();
    }
    drop(lease);
}

/// One direction: `first`, then whatever is read, then the end.
async fn copy(reader: &mut Reader, writer: &mut Writer, first: Bytes, patience: Duration) -> Result<(), Broken> {
    let mut timer = Timer::new(crate::clock::now() + patience);
    if writer.write_all([&first, b"", b""], &mut timer, patience).await.is_err() {
        return Err(Broken);
    }
    drop(first);
    loop {
        // A silent tunnel holds no buffer.
        std::future::poll_fn(|cx| reader.poll_readable(cx)).await;
        let mut buffer = BytesMut::with_capacity(BUFFER);
        match reader.read_buf(&mut buffer).await {
            Ok(0) => {
                writer.finish();
                return Ok(());
            }
            Ok(_) => {}
            Err(_) => return Err(Broken),
        }
        if writer.write_all([&buffer, b"", b""], &mut timer, patience).await.is_err() {
            return Err(Broken);
        }
    }
}
