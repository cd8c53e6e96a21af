//! A connection that changed its protocol (a WebSocket): bytes both ways until both ends have closed.

use super::Proxy;
use super::exchange::Upgraded;
use super::socket::{Reader, Writer};
use super::timer::Timer;
use std::time::Duration;

/// One read of a tunnel.
const BUFFER: usize = 16 * 1024;

/// One end broke.
struct Broken;

/// Passes bytes until both ends have closed. If one breaks, or the tunnel is dropped before, both are reset. What either
/// sent ahead of the switch lies in its reader.
pub(super) async fn run(
    proxy: &Proxy,
    upgraded: Upgraded,
    mut client_reader: Box<Reader>,
    client_writer: &mut Writer,
    patience: Duration,
) {
    let Upgraded { lease, mut reader, mut writer } = upgraded;
    let _tunnel = proxy.tunnel();
    // The replica's socket asks sooner, from its dial on.
    client_writer.keep_alive();
    // A replica may leave unread what the client sends.
    writer.await_acks();
    client_writer.begin();
    writer.begin();
    let up = copy(&mut client_reader, &mut writer, patience);
    let down = copy(&mut reader, client_writer, patience);
    if tokio::try_join!(up, down).is_ok() {
        client_writer.end();
        writer.end();
    }
    drop(lease);
}

/// One direction: whatever is read, then the end.
async fn copy(reader: &mut Reader, writer: &mut Writer, patience: Duration) -> Result<(), Broken> {
    let mut timer = Timer::new(crate::clock::now() + patience);
    loop {
        if reader.ahead().is_empty() {
            match reader.fill(BUFFER).await {
                Ok(0) => {
                    writer.finish();
                    return Ok(());
                }
                Ok(_) => {}
                Err(_) => return Err(Broken),
            }
        }
        let ahead = reader.ahead();
        let count = ahead.len();
        if writer.write_all([ahead, b"", b""], &mut timer, patience).await.is_err() {
            return Err(Broken);
        }
        reader.consume(count);
        // A silent tunnel holds no buffer.
        reader.rest();
    }
}
