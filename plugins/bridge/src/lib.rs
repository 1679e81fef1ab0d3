//! The bridge between a host that is not written in Rust and plugins built with the `pgdog-plugin` crate.
//!
//! Those plugins expect a tree and parameters as Rust lays them out in memory, so only Rust, of the same compiler and the same
//! pg_query, can make them. The host (src/plugin/ of the proxy) calls the functions below with numbers only: pointers, lengths
//! and counts up to 2^53. None of them panics or unwinds, whatever the bytes; a wrong pointer is the host's fault.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::slice;
use std::sync::atomic::Ordering;

use pgdog_plugin::PdStr;

pub mod bind;
pub mod calls;
pub mod check;
pub mod crash;
pub mod deep;
pub mod levels;
pub mod meter;
pub mod parse;
pub mod route;
pub mod say;
pub mod shapes;
pub mod skeleton;
pub mod walk;
pub mod watch;

use calls::Part;
use parse::{Backslash, Refused, Statement};
use route::{Plugin, RouteFunction, Unasked};

#[global_allocator]
static ALLOCATOR: meter::Meter = meter::Meter;

/// Raised when the functions below change. src/plugin/abi.ts has the same number.
const ABI: u32 = 3;

thread_local! {
    /// Kind, position and message of the last call on this thread that failed.
    static LAST_ERROR: RefCell<(i32, i32, String)> = const { RefCell::new((0, 0, String::new())) };
}

const KIND_SYNTAX: i32 = 1;
const KIND_TOO_COMPLEX: i32 = 2;
const KIND_BROKEN: i32 = 3;

fn fail(kind: i32, position: i32, message: String) {
    LAST_ERROR.with_borrow_mut(|last| *last = (kind, position, message));
}

/// Runs `work`; a panic becomes an error of this thread and `otherwise`.
fn guarded<T>(otherwise: T, work: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        fail(KIND_BROKEN, 0, format!("the bridge panicked: {text}"));
        otherwise
    })
}

unsafe fn bytes<'a>(data: *const u8, length: usize) -> &'a [u8] {
    if length == 0 { &[] } else { unsafe { slice::from_raw_parts(data, length) } }
}

/// Copies as much as fits; returns the whole length.
unsafe fn copy_out(text: &[u8], out: *mut u8, capacity: usize) -> i32 {
    unsafe { ptr::copy_nonoverlapping(text.as_ptr(), out, text.len().min(capacity)) };
    text.len().min(i32::MAX as usize) as i32
}

#[unsafe(no_mangle)]
pub extern "C" fn pgdog_bridge_abi() -> u32 {
    ABI
}

/// 0 when this build understands itself (`check.rs`), otherwise -1 and an error.
#[unsafe(no_mangle)]
pub extern "C" fn pgdog_bridge_check() -> i32 {
    guarded(-1, || match check::check() {
        Ok(()) => 0,
        Err(message) => {
            fail(KIND_BROKEN, 0, message);
            -1
        }
    })
}

/// `which`: 0 rustc, 1 pg_query, 2 "yes" when parses may run side by side. Returns the length.
///
/// # Safety
/// `out` has room for `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_version(which: u32, out: *mut u8, capacity: usize) -> i32 {
    let rustc = pgdog_plugin::comp::rustc_version();
    let text: &str = match which {
        0 => &rustc,
        1 => env!("BRIDGE_PG_QUERY_VERSION"),
        _ if cfg!(parser_leaves_stderr_alone) => "yes",
        _ => "no",
    };
    unsafe { copy_out(text.as_bytes(), out, capacity) }
}

/// The kind of the last error on this thread: 1 syntax, 2 too complex, 3 broken.
#[unsafe(no_mangle)]
pub extern "C" fn pgdog_bridge_error_kind() -> i32 {
    LAST_ERROR.with_borrow(|last| last.0)
}

/// Where the last syntax error is, in characters from 1; 0 when unknown.
#[unsafe(no_mangle)]
pub extern "C" fn pgdog_bridge_error_position() -> i32 {
    LAST_ERROR.with_borrow(|last| last.1)
}

/// The message of the last error on this thread. Returns its length.
///
/// # Safety
/// `out` has room for `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_error_message(out: *mut u8, capacity: usize) -> i32 {
    LAST_ERROR.with_borrow(|last| unsafe { copy_out(last.2.as_bytes(), out, capacity) })
}

/// Parses UTF-8 text. Returns a statement to be freed, or null and an error. `escapes`: 1 when the session that it comes from
/// has `standard_conforming_strings = off`.
///
/// # Safety
/// `sql` points at `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_parse(sql: *const u8, length: usize, escapes: u32) -> *mut Statement {
    let backslash = if escapes == 0 { Backslash::Plain } else { Backslash::Escapes };
    guarded(ptr::null_mut(), || match parse::parse(unsafe { bytes(sql, length) }, backslash) {
        Ok(statement) => Box::into_raw(statement),
        Err(refused) => {
            match refused {
                Refused::Syntax(message, position) => fail(KIND_SYNTAX, position, message),
                Refused::TooComplex => fail(KIND_TOO_COMPLEX, 0, "stack depth limit exceeded".into()),
                Refused::Broken(message) => fail(KIND_BROKEN, 0, message),
            }
            ptr::null_mut()
        }
    })
}

/// The tree of a text that differs from an earlier one in constants only; null when it has to be parsed. Read as with
/// `standard_conforming_strings = on`. It is not to be freed, and is this thread's until its next call of this function.
///
/// # Safety
/// `sql` points at `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_shaped(sql: *const u8, length: usize) -> *const Statement {
    guarded(ptr::null(), || shapes::shaped(unsafe { bytes(sql, length) }))
}

/// Frees the trees that this thread keeps for `pgdog_bridge_shaped`.
#[unsafe(no_mangle)]
pub extern "C" fn pgdog_bridge_forget() {
    guarded((), shapes::forget);
}

/// Heap bytes that the statement holds.
///
/// # Safety
/// `statement` came from `pgdog_bridge_parse` and was not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_size(statement: *const Statement) -> f64 {
    unsafe { (*statement).bytes as f64 }
}

/// Names of the prepared statements that the text runs by EXECUTE, each with a NUL behind it. Copies as much as fits; returns the
/// whole length.
///
/// # Safety
/// `statement` came from `pgdog_bridge_parse` and was not freed; `out` has room for `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_executes(statement: *const Statement, out: *mut u8, capacity: usize) -> i32 {
    unsafe { copy_out(&(*statement).executes, out, capacity) }
}

/// # Safety
/// `statement` came from `pgdog_bridge_parse`, and this is its only free.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_free(statement: *mut Statement) {
    guarded((), || {
        let statement = unsafe { Box::from_raw(statement) };
        if statement.deep {
            deep::run(move || drop(statement));
        }
    });
}

/// Calls the `pgdog_route` of the plugin with this number (`pgdog_bridge_name`). Returns `shard × 4 + read_write`; NaN when the
/// Bind message is malformed, infinity when the plugin could not be asked. `message + offset` is where the count of format codes
/// of a Bind message lies; `length` 0 stands for no Bind.
///
/// # Safety
/// `function` is a `pgdog_route` of a library whose versions were checked, `statement` is alive, `message` points at
/// `offset + length` bytes that nobody changes meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_route(
    function: *const c_void,
    number: u32,
    statement: *const Statement,
    shards: u32,
    flags: u32,
    message: *const u8,
    offset: usize,
    length: usize,
) -> f64 {
    guarded(f64::INFINITY, || {
        let function = unsafe { std::mem::transmute::<*const c_void, RouteFunction>(function) };
        let message = if length == 0 { &[][..] } else { unsafe { bytes(message.add(offset), length) } };
        match route::route(Plugin { function, number }, unsafe { &*statement }, u64::from(shards), flags, message) {
            Ok(route) => route,
            Err(Unasked::Malformed) => f64::NAN,
            Err(Unasked::NoThread) => f64::INFINITY,
        }
    })
}

/// From now on a plugin that ends the process, or does not come back, is named on standard error. `format`: `log_format`, 0
/// for text, 1 for json, 2 for json_flattened.
#[unsafe(no_mangle)]
pub extern "C" fn pgdog_bridge_watch(format: u32) {
    say::FORMAT.store(format, Ordering::Relaxed);
    crash::watch();
    watch::watch();
}

/// The number by which calls of the plugin with this name are marked.
///
/// # Safety
/// `name` points at `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_name(name: *const u8, length: usize) -> u32 {
    guarded(u32::MAX, || calls::register(&String::from_utf8_lossy(unsafe { bytes(name, length) })))
}

/// Opens a library, all its symbols bound at once, for the plugin with this number. Null and an error when it cannot be.
/// Libraries are never closed.
///
/// # Safety
/// `path` points at `length` bytes. The library's constructors run.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_open(path: *const u8, length: usize, number: u32) -> *mut c_void {
    guarded(ptr::null_mut(), || {
        let Ok(path) = CString::new(unsafe { bytes(path, length) }) else { return ptr::null_mut() };
        let open = || unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        let library = calls::marked(number, Part::Load, open);
        if library.is_null() {
            let reason = unsafe { libc::dlerror() };
            let reason = if reason.is_null() { c"unknown".as_ptr() } else { reason as *const c_char };
            fail(KIND_BROKEN, 0, unsafe { CStr::from_ptr(reason) }.to_string_lossy().into_owned());
        }
        library
    })
}

/// The address of a symbol of an open library; null when it has none of that name.
///
/// # Safety
/// `library` came from `pgdog_bridge_open`, `name` points at `length` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_symbol(library: *mut c_void, name: *const u8, length: usize) -> *mut c_void {
    guarded(ptr::null_mut(), || match CString::new(unsafe { bytes(name, length) }) {
        Ok(name) => unsafe { libc::dlsym(library, name.as_ptr()) },
        Err(_) => ptr::null_mut(),
    })
}

/// Calls `void f(PdStr *)` of the plugin with this number and copies the string. Returns its length, or -1 when that is absurd
/// (nothing is read then).
///
/// # Safety
/// `function` has that signature; `out` has room for `capacity` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_string(function: *const c_void, number: u32, out: *mut u8, capacity: usize) -> i32 {
    let function = unsafe { std::mem::transmute::<*const c_void, unsafe extern "C" fn(*mut PdStr)>(function) };
    let mut string = PdStr { len: 0, data: ptr::null_mut() };
    // The string's memory is the plugin's, too: a crash by a wrong address is told as the plugin's.
    calls::marked(number, Part::Load, || unsafe {
        function(&mut string);
        match string.len {
            length if length > capacity => -1,
            _ if string.data.is_null() => 0,
            length => copy_out(bytes(string.data.cast(), length), out, capacity),
        }
    })
}

/// Calls `void f(void)` of the plugin with this number: its `pgdog_init` (`part` 1) or `pgdog_fini` (3).
///
/// # Safety
/// `function` has that signature.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_call(function: *const c_void, number: u32, part: u32) {
    let function = unsafe { std::mem::transmute::<*const c_void, unsafe extern "C" fn()>(function) };
    calls::marked(number, Part::from(part), || unsafe { function() });
}

/// The addresses of the functions that worker threads call, so that they need no library of their own.
///
/// # Safety
/// `out` has room for eleven addresses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pgdog_bridge_table(out: *mut usize) {
    let table = [
        pgdog_bridge_parse as *const () as usize,
        pgdog_bridge_size as *const () as usize,
        pgdog_bridge_free as *const () as usize,
        pgdog_bridge_route as *const () as usize,
        pgdog_bridge_error_kind as *const () as usize,
        pgdog_bridge_error_position as *const () as usize,
        pgdog_bridge_error_message as *const () as usize,
        pgdog_bridge_call as *const () as usize,
        pgdog_bridge_executes as *const () as usize,
        pgdog_bridge_shaped as *const () as usize,
        pgdog_bridge_forget as *const () as usize,
    ];
    unsafe { ptr::copy_nonoverlapping(table.as_ptr(), out, table.len()) };
}
