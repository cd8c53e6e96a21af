//! `evenkeel hold`: holds a container's network namespace, with its address and its alias, for proxies that join it. They
//! come and go; what the network knows stays. It reads no configuration and opens no port.

use crate::discovery;
use crate::linux;
use crate::namespace::{container, migrates_queues};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};

/// Says what it holds, and does nothing until SIGTERM or SIGINT.
pub async fn hold() -> ExitCode {
    if !linux::HERE {
        eprintln!("evenkeel: `hold` needs Linux, whose network namespaces it holds");
        return ExitCode::FAILURE;
    }
    // As process 1 of a container it gets only the signals that it asks for.
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        eprintln!("evenkeel: signals cannot be caught");
        return ExitCode::FAILURE;
    };
    // For `evenkeel ready` in this container. Without it only that fails.
    let _here = name().and_then(|name| UnixDatagram::bind_addr(&name));
    let mut addresses: Vec<IpAddr> = discovery::interfaces().filter(|address| !address.is_loopback()).collect();
    addresses.sort();
    addresses.dedup();
    // Whoever reads this may have gone.
    let _ = writeln!(io::stdout(), "evenkeel {}: {}", env!("CARGO_PKG_VERSION"), line(&addresses, migrates_queues()));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    ExitCode::SUCCESS
}

/// Whether one runs in this container.
pub(super) fn is_here() -> bool {
    // Nothing is sent: that there is somebody to send to is the answer.
    let connect = |name: &SocketAddr| UnixDatagram::unbound()?.connect_addr(name);
    name().and_then(|name| connect(&name)).is_ok()
}

fn name() -> io::Result<SocketAddr> {
    linux::abstract_name(format!("evenkeel/hold/{}", container()))
}

fn line(addresses: &[IpAddr], migrates: Option<bool>) -> String {
    let addresses: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let held = if addresses.is_empty() { "no address but loopback".to_owned() } else { addresses.join(", ") };
    let queues = match migrates {
        Some(true) => "net.ipv4.tcp_migrate_req is 1, so proxies hand over their queues",
        Some(false) => {
            "net.ipv4.tcp_migrate_req is 0, so a proxy that ends resets what is in its queues; set it to 1 for this \
             container (compose: sysctls; docker run: --sysctl)"
        }
        None => {
            "this kernel has no net.ipv4.tcp_migrate_req (Linux 5.14), so a proxy that ends resets what is in its queues"
        }
    };
    format!("holding {held}; {queues}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_it_holds_and_what_is_missing() {
        let addresses = ["172.20.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert!(line(&addresses, Some(true)).starts_with("holding 172.20.0.2, fd00::2; net.ipv4.tcp_migrate_req is 1"));
        assert!(line(&[], Some(false)).contains("set it to 1 for this container"));
        assert!(line(&addresses, None).contains("Linux 5.14"));
    }
}
