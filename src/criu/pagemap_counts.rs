//! Pagemaps for readers that do not know CRIU's newer field.
//!
//! CRIU from 4.2 on counts the pages of a run in `nr_pages`, 64 bits wide, and leaves
//! 0 in the required `compat_nr_pages`, which is all that older readers (go-criu, so
//! checkpointctl) look at. Both may be told; CRIU prefers the newer one.

use prost::encoding::encode_varint;

use super::wire;

const HEAD: usize = 8;
const COMPAT_NR_PAGES: u32 = 2;
const NR_PAGES: u32 = 5;

/// The image with both counts in each run; `None` where [`without_old_counts`] would not give
/// the same image back.
pub fn with_old_counts(image: &[u8]) -> Option<Vec<u8>> {
    let told = rewritten(image, |count| u32::try_from(count).ok())?;
    let back = without_old_counts(&told)?;
    (back == image).then_some(told)
}

/// The image as CRIU from 4.2 on writes it; `None` where it is malformed.
pub fn without_old_counts(image: &[u8]) -> Option<Vec<u8>> {
    rewritten(image, |_| Some(0))
}

fn rewritten(image: &[u8], old_count: impl Fn(u64) -> Option<u32>) -> Option<Vec<u8>> {
    let (head, mut rest) = image.split_at_checked(HEAD)?;
    let mut out = head.to_vec();
    let mut first = true;
    while !rest.is_empty() {
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (entry, tail) = tail.split_at_checked(length)?;
        rest = tail;
        let entry = match std::mem::take(&mut first) {
            true => entry.to_vec(),
            false => run(entry, &old_count)?,
        };
        out.extend(u32::try_from(entry.len()).ok()?.to_le_bytes());
        out.extend(entry);
    }
    Some(out)
}

fn run(entry: &[u8], old_count: impl Fn(u64) -> Option<u32>) -> Option<Vec<u8>> {
    let fields = wire::fields(entry)?;
    let mut newer = fields.iter().filter(|field| field.number == NR_PAGES);
    let count = newer.next()?.varint()?;
    let mut out = Vec::with_capacity(entry.len() + 4);
    for field in &fields {
        match field.number {
            COMPAT_NR_PAGES => {
                encode_varint(u64::from(COMPAT_NR_PAGES << 3), &mut out);
                encode_varint(u64::from(old_count(count)?), &mut out);
            }
            _ => out.extend(field.raw),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A head and runs, as (count in the old field, count in the new one).
    fn image(runs: &[(u64, Option<u64>)]) -> Vec<u8> {
        let mut image = vec![0x19, 0x43, 0x56, 0x54, 0x25, 0x40, 0x08, 0x56];
        let mut push = |entry: &[u8]| {
            image.extend((entry.len() as u32).to_le_bytes());
            image.extend(entry);
        };
        push(&[8, 1]);
        for (old, new) in runs {
            let mut entry = vec![8, 7, 16];
            encode_varint(*old, &mut entry);
            entry.extend([32, 4]);
            if let Some(new) = new {
                entry.push(40);
                encode_varint(*new, &mut entry);
            }
            push(&entry);
        }
        image
    }

    #[test]
    fn both_counts_are_told_and_taken_back() {
        let newer = image(&[(0, Some(3)), (0, Some(4000))]);
        let both = image(&[(3, Some(3)), (4000, Some(4000))]);
        assert_eq!(with_old_counts(&newer).as_ref(), Some(&both));
        assert_eq!(without_old_counts(&both).as_ref(), Some(&newer));
    }

    #[test]
    fn what_would_not_come_back_is_left_as_it_is() {
        for image in [
            image(&[(3, None)]),
            image(&[(5, Some(3))]),
            image(&[(0, Some(1 << 33))]),
            image(&[(0, Some(3))])[..20].to_vec(),
            vec![1, 2, 3],
        ] {
            assert_eq!(with_old_counts(&image), None);
        }
    }

    proptest! {
        #[test]
        fn any_bytes_come_back_or_are_left(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Some(told) = with_old_counts(&bytes) {
                prop_assert_eq!(without_old_counts(&told), Some(bytes));
            }
        }
    }
}
