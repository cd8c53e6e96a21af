//! Operators' pages that are open and read, as browsers have them, without a browser for each.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Open pages. They are closed when this is dropped.
#[derive(Debug)]
pub struct Pages {
    open: Vec<(TcpStream, Arc<AtomicU64>)>,
    readers: Vec<JoinHandle<()>>,
}

impl Pages {
    /// Opens so many at this admin address, and reads what they are sent.
    ///
    /// # Panics
    /// When one cannot be opened.
    pub fn open(admin: SocketAddr, count: usize) -> Pages {
        let mut pages = Pages { open: vec![], readers: vec![] };
        for _ in 0..count {
            let mut page = TcpStream::connect(admin).expect("the admin address is served");
            write!(page, "GET /events HTTP/1.1\r\nHost: {admin}\r\n\r\n").expect("it is read");
            let renewals = Arc::new(AtomicU64::new(0));
            let (mut reader, count) = (page.try_clone().expect("a descriptor"), renewals.clone());
            pages.readers.push(std::thread::spawn(move || {
                let mut piece = [0; 16 << 10];
                let mut ends = 0;
                while let Ok(length @ 1..) = reader.read(&mut piece) {
                    for byte in &piece[..length] {
                        // An event ends in an empty line, and there is no other.
                        ends = if *byte == b'\n' { ends + 1 } else { 0 };
                        if ends == 2 {
                            count.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                }
            }));
            pages.open.push((page, renewals));
        }
        pages
    }

    /// How often the page was renewed that was renewed least.
    pub fn renewals(&self) -> u64 {
        self.open.iter().map(|(_, renewals)| renewals.load(Ordering::Relaxed)).min().unwrap_or(0)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        for (page, _) in &self.open {
            let _ = page.shutdown(Shutdown::Both);
        }
        self.readers.drain(..).for_each(|reader| reader.join().expect("it only reads"));
    }
}
