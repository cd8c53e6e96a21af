//! Uploads whose replica breaks off, refuses or answers early.

use crate::{Bed, serve};
use testbed::{Loopback, Wire, eventually};

// D1
#[test]
fn a_connect_that_is_refused_moves_an_upload_of_any_size_and_method() {
    const SIZE: usize = 1 << 20;
    let network = Loopback::new();
    let origin = network.origin("app", |h, w, _| serve(h, w));
    let refusing = network.origin("app", |h, w, _| serve(h, w));
    let bed = Bed::around(network, vec![origin], crate::ailing::without_probes);
    eventually("both are proven", || bed.proxy.lines("up: probe passed").len() == 2);
    let std::net::IpAddr::V4(refused) = refusing.address().ip() else { unreachable!() };
    refusing.refuse();
    drop(refusing);
    bed.network.dns().add("app", refused);
    let request =
        [format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes(), &vec![b'x'; SIZE]]
            .concat();
    for _ in 0..5 {
        let mut wire = Wire::connect(bed.proxy.address());
        wire.send(&request);
        assert_eq!(wire.response().unwrap().status, 200);
    }
}
