//! The wire format of protocol buffers, field by field.
//!
//! For changing one field of a message without losing those that we do not
//! know. Reads from slices; never copies; stops at the first byte that is wrong.

/// One field of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'a> {
    pub number: u32,
    pub value: Value<'a>,
    /// The field with its tag, as it stands in the message.
    pub raw: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a fixed size: not looked into.
    Fixed,
}

impl<'a> Field<'a> {
    pub fn varint(&self) -> Option<u64> {
        match self.value {
            Value::Varint(number) => Some(number),
            _ => None,
        }
    }

    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self.value {
            Value::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// The fields of a message, or `None` when it is malformed.
pub(super) fn fields(message: &[u8]) -> Option<Vec<Field<'_>>> {
    let mut fields = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let start = rest;
        let tag = take_varint(&mut rest)?;
        let number = u32::try_from(tag >> 3).ok().filter(|number| *number > 0)?;
        let value = match tag & 7 {
            0 => Value::Varint(take_varint(&mut rest)?),
            1 => take(&mut rest, 8).map(|_| Value::Fixed)?,
            2 => {
                let length = take_varint(&mut rest)?;
                Value::Bytes(take(&mut rest, usize::try_from(length).ok()?)?)
            }
            5 => take(&mut rest, 4).map(|_| Value::Fixed)?,
            _ => return None,
        };
        let raw = &start[..start.len() - rest.len()];
        fields.push(Field { number, value, raw });
    }
    Some(fields)
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(length)?;
    *rest = tail;
    Some(head)
}

fn take_varint(rest: &mut &[u8]) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(rest, 1)?.first()?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Appends a field that holds a number.
pub(super) fn put_varint(message: &mut Vec<u8>, field: u32, number: u64) {
    put_number(message, u64::from(field) << 3);
    put_number(message, number);
}

/// Appends a field that holds bytes.
pub(super) fn put_bytes(message: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    put_number(message, u64::from(field) << 3 | 2);
    put_number(message, bytes.len() as u64);
    message.extend(bytes);
}

fn put_number(message: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        message.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    message.push(number as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_put_is_found() {
        let mut message = Vec::new();
        put_varint(&mut message, 6, 300);
        put_bytes(&mut message, 19, b"abc");
        let fields = fields(&message).unwrap();
        assert_eq!((fields[0].number, fields[0].varint()), (6, Some(300)));
        assert_eq!(
            (fields[1].number, fields[1].bytes()),
            (19, Some(&b"abc"[..]))
        );
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_loses_nothing(bytes: Vec<u8>) {
            if let Some(fields) = fields(&bytes) {
                let raw: Vec<u8> = fields.iter().flat_map(|field| field.raw.to_vec()).collect();
                prop_assert_eq!(raw, bytes);
            }
        }

        #[test]
        fn numbers_come_back(field in 1u32..1000, number: u64) {
            let mut message = Vec::new();
            put_varint(&mut message, field, number);
            prop_assert_eq!(fields(&message).unwrap()[0].varint(), Some(number));
        }
    }
}
