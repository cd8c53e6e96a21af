//! The namespaces that this process is in, which containers may share or not.

/// What tells this container from others in the same network namespace: its file system, which containers never share.
pub(crate) fn container() -> String {
    let namespace = std::fs::read_link("/proc/self/ns/mnt").unwrap_or_default();
    namespace.to_string_lossy().chars().filter(char::is_ascii_digit).collect()
}

/// Whether what is in the queues of a listener that closes goes to those that listen on at the same port; `None` where the
/// kernel cannot.
pub(crate) fn migrates_queues() -> Option<bool> {
    Some(std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req").ok()?.trim() == "1")
}
