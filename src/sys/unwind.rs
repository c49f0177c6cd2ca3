//! Stand-ins for libunwind in static binaries with musl that abort at a panic.
//!
//! Such a binary has no tables to unwind by, so that std's backtrace would end at its first frame.
//! The library for it takes 35 KiB.

use std::ffi::{c_int, c_void};

/// "There are no more frames", in the words of the Itanium ABI.
const END_OF_STACK: c_int = 5;

/// Takes the place of libunwind's, which is then not linked; makes no callback.
// The name is libunwind's, and nothing else here has it: musl has no unwinder.
#[no_mangle]
extern "C" fn _Unwind_Backtrace(_frame: *const c_void, _argument: *mut c_void) -> c_int {
    END_OF_STACK
}

/// Functions that std's personality would call for an exception, which never happens here. The
/// linker resolves these names before it drops unused code, and would find all of the library.
macro_rules! never_called {
    ($($name:ident)*) => {
        $(#[no_mangle]
        extern "C" fn $name() -> usize {
            0
        })*
    };
}

never_called! {
    _Unwind_GetDataRelBase
    _Unwind_GetIP
    _Unwind_GetIPInfo
    _Unwind_GetLanguageSpecificData
    _Unwind_GetRegionStart
    _Unwind_GetTextRelBase
    _Unwind_SetGR
    _Unwind_SetIP
}

// The same on 32-bit ARM, which unwinds in a way of its own.
#[cfg(target_arch = "arm")]
never_called! {
    _Unwind_GetGR
    _Unwind_VRS_Get
    _Unwind_VRS_Set
    __aeabi_unwind_cpp_pr0
    __aeabi_unwind_cpp_pr1
    __aeabi_unwind_cpp_pr2
    __gnu_unwind_frame
}
