//! Random bytes from the operating system, also without `/dev`: for server and client.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// Fills `bytes`.
///
/// `getrandom` looks up the C library's function by name at run time. A static glibc has no such names, so `getrandom`
/// falls back to `/dev/urandom`, which may be missing. The system call needs neither.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    getrandom::fill(bytes).or_else(|error| by_system_call(bytes).ok_or(error))
}

/// A new id: 20 characters of base64url, 120 random bits. The official server's ids have the same length.
pub(crate) fn id<T: for<'a> From<&'a str>>() -> Result<T, getrandom::Error> {
    let (mut bytes, mut text) = ([0; 15], [0; 20]);
    fill(&mut bytes)?;
    URL_SAFE_NO_PAD.encode_slice(bytes, &mut text).expect("20 characters hold 15 bytes");
    Ok(T::from(std::str::from_utf8(&text).expect("base64 is ASCII")))
}

/// A random number.
pub(crate) fn u32() -> Result<u32, getrandom::Error> {
    let mut bytes = [0; 4];
    fill(&mut bytes)?;
    Ok(u32::from_ne_bytes(bytes))
}

/// A random number.
pub(crate) fn u64() -> Result<u64, getrandom::Error> {
    let mut bytes = [0; 8];
    fill(&mut bytes)?;
    Ok(u64::from_ne_bytes(bytes))
}

/// `None`: the kernel is older than 3.17, or a sandbox forbids the call.
fn by_system_call(bytes: &mut [u8]) -> Option<()> {
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_call_alone_is_enough() {
        let draw = || {
            let mut bytes = [0; 1_000];
            by_system_call(&mut bytes).expect("the kernel of this machine has the call");
            bytes
        };
        assert_ne!(draw(), draw());
        assert!(draw()[990..].iter().any(|&byte| byte != 0), "the end was not filled");
    }
}
