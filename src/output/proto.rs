//! The messages of pprof's profile format, in the form that prost-build generates.
//!
//! Source: <https://github.com/google/pprof/blob/main/proto/profile.proto> (package `perftools.profiles`). The format is
//! frozen but for added fields, so the messages are committed; to compare, run `prost_build::compile_protos(&["profile.proto"],
//! &["."])`. The top message `Profile` is not here: it is never built as a whole, [`super::pprof`] writes its fields one at
//! a time under the numbers in [`profile`].

/// Field numbers of the top message `Profile`.
pub mod profile {
    /// `repeated ValueType sample_type`
    pub const SAMPLE_TYPE: u32 = 1;
    /// `repeated Sample sample`
    pub const SAMPLE: u32 = 2;
    /// `repeated Mapping mapping`
    pub const MAPPING: u32 = 3;
    /// `repeated Location location`
    pub const LOCATION: u32 = 4;
    /// `repeated Function function`
    pub const FUNCTION: u32 = 5;
    /// `repeated string string_table`, entry 0 empty
    pub const STRING_TABLE: u32 = 6;
    /// `int64 time_nanos`
    pub const TIME_NANOS: u32 = 9;
    /// `repeated int64 comment`, indices into the string table
    pub const COMMENT: u32 = 13;
    /// `int64 default_sample_type`, index into the string table
    pub const DEFAULT_SAMPLE_TYPE: u32 = 14;
}

/// ValueType describes the semantics and measurement units of a value.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct ValueType {
    /// Index into string table.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// Index into string table.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// Each Sample records values encountered in some program context. The program context is typically a stack trace, perhaps
/// augmented with auxiliary information like the thread-id, some indicator of a higher level request being handled etc.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Sample {
    /// The ids recorded here correspond to a Profile.location.id. The leaf is at location_id\[0\].
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: ::prost::alloc::vec::Vec<u64>,
    /// The type and unit of each value is defined by the corresponding entry in Profile.sample_type. All samples must have
    /// the same number of values, the same as the length of Profile.sample_type.
    #[prost(int64, repeated, tag = "2")]
    pub value: ::prost::alloc::vec::Vec<i64>,
    /// label includes additional context for this sample.
    #[prost(message, repeated, tag = "3")]
    pub label: ::prost::alloc::vec::Vec<Label>,
}

/// Additional context of a sample.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Label {
    /// Index into string table.
    #[prost(int64, tag = "1")]
    pub key: i64,
    /// Index into string table. At most one of str and num must be present.
    #[prost(int64, tag = "2")]
    pub str: i64,
    /// A number.
    #[prost(int64, tag = "3")]
    pub num: i64,
    /// Index into string table: the unit of num.
    #[prost(int64, tag = "4")]
    pub num_unit: i64,
}

/// A range of memory that is backed by a file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Mapping {
    /// Unique nonzero id for the mapping.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Address at which the binary (or DLL) is loaded into memory.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// The limit of the address range occupied by this mapping.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// Offset in the binary that corresponds to the first mapped address.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// Index into string table: the object this entry is loaded from.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Index into string table: a string that uniquely identifies a particular program version with high probability.
    #[prost(int64, tag = "6")]
    pub build_id: i64,
    /// The following fields indicate the resolution of symbolic info.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
    /// File names are resolved.
    #[prost(bool, tag = "8")]
    pub has_filenames: bool,
    /// Line numbers are resolved.
    #[prost(bool, tag = "9")]
    pub has_line_numbers: bool,
    /// Inlined frames are resolved.
    #[prost(bool, tag = "10")]
    pub has_inline_frames: bool,
}

/// Describes function and line table debug information.
#[derive(Clone, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Location {
    /// Unique nonzero id for the location.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// The id of the corresponding profile.Mapping for this location.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// The instruction address for this location, if available.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// Multiple line indicates this location has inlined functions, where the last entry represents the caller into which
    /// the preceding entries were inlined.
    #[prost(message, repeated, tag = "4")]
    pub line: ::prost::alloc::vec::Vec<Line>,
    /// Provides an indication that multiple symbols map to this location's address.
    #[prost(bool, tag = "5")]
    pub is_folded: bool,
}

/// A source position.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Line {
    /// The id of the corresponding profile.Function for this line.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
    /// Line number in source code.
    #[prost(int64, tag = "2")]
    pub line: i64,
    /// Column number in source code.
    #[prost(int64, tag = "3")]
    pub column: i64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, Hash, ::prost::Message)]
pub struct Function {
    /// Unique nonzero id for the function.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Index into string table: name of the function, in human-readable form if available.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Index into string table: name of the function, as identified by the system.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
    /// Index into string table: source file containing the function.
    #[prost(int64, tag = "4")]
    pub filename: i64,
    /// Line number in source file.
    #[prost(int64, tag = "5")]
    pub start_line: i64,
}
