//! The parameters of a Bind message, as its bytes lie on the wire, seen as the `Parameter`s of the plugin crate.
//! PostgreSQL docs, "Message Formats", Bind.

use std::ffi::c_void;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use pgdog_plugin::PdParameters;
use pgdog_plugin::parameters::{Parameter, ParameterFormat};

/// The message breaks its own counts, or has a format code that PostgreSQL does not know: PostgreSQL will say so itself.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

/// Two lists that are filled anew for each call. The values are not copied: each `Vec` inside `parameters` borrows the
/// message, so it must never be dropped or grown (a plugin sees them behind a type that does neither).
#[derive(Default)]
pub struct Parameters {
    parameters: Vec<ManuallyDrop<Parameter>>,
    formats: Vec<ParameterFormat>,
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn int16(&mut self) -> Result<u16, Malformed> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn int32(&mut self) -> Result<i32, Malformed> {
        self.take(4).map(|bytes| i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

impl Parameters {
    pub fn clear(&mut self) {
        self.parameters.clear();
        self.formats.clear();
    }

    /// Reads from the count of format codes on; what follows the last value is left alone.
    pub fn read(&mut self, message: &[u8]) -> Result<(), Malformed> {
        self.clear();
        let mut cursor = Cursor(message);
        for _ in 0..cursor.int16()? {
            self.formats.push(match cursor.int16()? {
                0 => ParameterFormat::Text,
                1 => ParameterFormat::Binary,
                _ => return Err(Malformed),
            });
        }
        for _ in 0..cursor.int16()? {
            let len = cursor.int32()?;
            let value = match len {
                -1 => &[][..],
                0.. => cursor.take(len as usize)?,
                _ => return Err(Malformed),
            };
            let data = if value.is_empty() { NonNull::dangling() } else { NonNull::from(value).cast() };
            // SAFETY: never dropped, never grown, and read-only for plugins; the message outlives the call.
            let data = unsafe { Vec::from_raw_parts(data.as_ptr(), value.len(), value.len()) };
            self.parameters.push(ManuallyDrop::new(Parameter { len, data }));
        }
        Ok(())
    }

    /// Valid while neither `self` nor the message changes.
    pub fn ffi(&self) -> PdParameters {
        PdParameters {
            num_params: self.parameters.len() as u64,
            params: self.parameters.as_ptr() as *mut c_void,
            num_format_codes: self.formats.len() as u64,
            format_codes: self.formats.as_ptr() as *mut c_void,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgdog_plugin::parameters::{ParameterValue, Parameters as Seen};

    fn message(formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut message = (formats.len() as u16).to_be_bytes().to_vec();
        formats.iter().for_each(|format| message.extend(format.to_be_bytes()));
        message.extend((values.len() as u16).to_be_bytes());
        for value in values {
            message.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            message.extend(value.unwrap_or_default());
        }
        message
    }

    #[test]
    fn a_plugin_sees_every_value_and_format() {
        let big = vec![b'z'; 3_000_000];
        let message = message(&[0, 1, 0, 0], &[Some(b"hello"), Some(&[0, 255]), None, Some(b""), Some(&big)]);
        let mut parameters = Parameters::default();
        for _ in 0..3 {
            parameters.read(&message).unwrap();
            let seen: Seen = parameters.ffi().into();
            assert_eq!(seen.len(), 5);
            assert_eq!(seen[0].decode(seen.parameter_format(0)), Some(ParameterValue::Text("hello")));
            assert_eq!(seen[1].decode(seen.parameter_format(1)), Some(ParameterValue::Binary(&[0, 255])));
            assert!(seen[2].null() && !seen[3].null());
            assert_eq!(seen[3].decode(seen.parameter_format(3)), Some(ParameterValue::Text("")));
            assert_eq!(seen[4].data, big);
            let kept = seen.clone();
            drop(seen);
            assert_eq!(kept[4].data.len(), big.len());
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_malformed() {
        let whole = message(&[0], &[Some(b"hello"), None]);
        let mut parameters = Parameters::default();
        for end in 0..whole.len() {
            assert_eq!(parameters.read(&whole[..end]), Err(Malformed), "{end}");
        }
        assert_eq!(parameters.read(&message(&[2], &[])), Err(Malformed));
        assert_eq!(parameters.read(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xfe]), Err(Malformed));
    }
}
