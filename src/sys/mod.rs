//! What std cannot do; the only place with `unsafe`.

#[cfg(target_os = "linux")]
pub mod packet;
