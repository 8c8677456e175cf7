//! An independent reader of profiles: gzip and the few protobuf fields that matter, written from profile.proto alone.

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;

/// A decoded profile.
#[derive(Default, Debug)]
pub struct Profile {
    /// `(type, unit)`.
    pub sample_types: Vec<(String, String)>,
    pub default_sample_type: String,
    pub comments: Vec<String>,
    /// File name and build id.
    pub mappings: Vec<(String, String)>,
    pub time_nanos: i64,
    /// Frames (root first) to `[count, bytes]`, summed over the samples with these frames.
    pub stacks: BTreeMap<Vec<String>, [u64; 2]>,
}

impl Profile {
    /// Reads a file written by the tool and checks what every reader relies on.
    pub fn read(path: &Path) -> Self {
        let packed = std::fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()));
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes).expect("gzip");
        Self::decode(&bytes)
    }

    /// Sum over all stacks.
    pub fn total(&self) -> [u64; 2] {
        self.sum(|_| true)
    }

    /// Sum over the stacks that `select`.
    pub fn sum(&self, select: impl Fn(&[String]) -> bool) -> [u64; 2] {
        self.stacks.iter().filter(|(stack, _)| select(stack)).fold([0, 0], |sum, (_, v)| [sum[0] + v[0], sum[1] + v[1]])
    }

    fn decode(bytes: &[u8]) -> Self {
        let mut strings: Vec<String> = Vec::new();
        let (mut types, mut samples, mut mappings, mut comments) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut location_function: HashMap<u64, u64> = HashMap::new();
        let mut function_name: HashMap<u64, u64> = HashMap::new();
        let mut profile = Self::default();
        let mut default_type = 0;
        for (field, value) in fields(bytes) {
            match (field, value) {
                (1, Value::Bytes(m)) => types.push((number(m, 1), number(m, 2))),
                (2, Value::Bytes(m)) => samples.push((numbers(m, 1), numbers(m, 2))),
                (3, Value::Bytes(m)) => mappings.push((number(m, 5), number(m, 6))),
                (4, Value::Bytes(m)) => {
                    let line = message(m, 4).expect("a location has a line");
                    assert!(location_function.insert(number(m, 1), number(line, 1)).is_none(), "location id twice");
                }
                (5, Value::Bytes(m)) => {
                    assert!(function_name.insert(number(m, 1), number(m, 2)).is_none(), "function id twice");
                }
                (6, Value::Bytes(s)) => strings.push(String::from_utf8(s.to_vec()).expect("UTF-8")),
                (9, Value::Number(n)) => profile.time_nanos = n.cast_signed(),
                (13, Value::Number(n)) => comments.push(n),
                (13, Value::Bytes(packed)) => comments.extend(varints(packed)),
                (14, Value::Number(n)) => default_type = n,
                _ => {}
            }
        }
        let text = |i: u64| strings.get(usize::try_from(i).unwrap()).unwrap_or_else(|| panic!("string {i}")).clone();
        assert_eq!(text(0), "", "the string table starts with the empty string");
        for ids in [&location_function, &function_name] {
            let mut ids: Vec<u64> = ids.keys().copied().collect();
            ids.sort_unstable();
            assert!(ids.iter().copied().eq(1..=ids.len() as u64), "ids are dense and start at 1");
        }
        profile.sample_types = types.iter().map(|&(t, u)| (text(t), text(u))).collect();
        profile.default_sample_type = text(default_type);
        profile.comments = comments.into_iter().map(text).collect();
        profile.mappings = mappings.into_iter().map(|(file, id)| (text(file), text(id))).collect();
        for (locations, values) in samples {
            let frames: Vec<String> =
                locations.iter().rev().map(|id| text(function_name[&location_function[id]])).collect();
            let values: [u64; 2] = values.try_into().expect("two values a sample");
            let sum = profile.stacks.entry(frames).or_default();
            *sum = [sum[0] + values[0], sum[1] + values[1]];
        }
        profile
    }
}

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// Fields of a message in their order.
fn fields(mut bytes: &[u8]) -> Vec<(u64, Value<'_>)> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let value = match tag & 7 {
            0 => Value::Number(varint(&mut bytes)),
            2 => {
                let n = usize::try_from(varint(&mut bytes)).unwrap();
                let (body, rest) = bytes.split_at(n);
                bytes = rest;
                Value::Bytes(body)
            }
            other => panic!("wire type {other}"),
        };
        all.push((tag >> 3, value));
    }
    all
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut n = 0;
    for shift in (0..64).step_by(7) {
        let (&b, rest) = bytes.split_first().expect("a whole varint");
        *bytes = rest;
        n |= u64::from(b & 0x7f) << shift;
        if b & 0x80 == 0 {
            return n;
        }
    }
    panic!("a varint of more than ten bytes");
}

fn varints(mut bytes: &[u8]) -> Vec<u64> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        all.push(varint(&mut bytes));
    }
    all
}

/// Field `want` as a number; 0 if absent, as proto3 has it.
fn number(bytes: &[u8], want: u64) -> u64 {
    numbers(bytes, want).first().copied().unwrap_or(0)
}

/// Field `want`, repeated, packed or not.
fn numbers(bytes: &[u8], want: u64) -> Vec<u64> {
    let mut all = Vec::new();
    for (field, value) in fields(bytes) {
        match value {
            Value::Number(n) if field == want => all.push(n),
            Value::Bytes(packed) if field == want => all.extend(varints(packed)),
            _ => {}
        }
    }
    all
}

fn message(bytes: &[u8], want: u64) -> Option<&[u8]> {
    fields(bytes).into_iter().find_map(|(field, value)| match value {
        Value::Bytes(body) if field == want => Some(body),
        _ => None,
    })
}
