//! Where the caller reserves space for the register arguments of a function (ABIInternal, abi-internal.md in cmd/compile).
//!
//! A function that is stopped in its prologue, or that needs an argument's address, has the argument in its spill slot although
//! DWARF places it in a register. The slots follow from the parameters' types alone.

use crate::architecture::Architecture;
use crate::model::types::{Kind, TypeId, TypeTable};

/// Types visited for one parameter: more than this cannot fit the registers.
const MAX_VISITS: u32 = 256;

/// CFA offsets of the spill slots of `params`: receiver, parameters and results in order. `None` for what has none.
///
/// * `arg_bytes`: what the function's tables say about arguments, results and spill slots together. DWARF does not tell results
///   from parameters; the split that gives this size is the right one.
pub(super) fn slots(
    params: &[TypeId],
    types: &TypeTable,
    architecture: &Architecture,
    argp: i64,
    arg_bytes: u64,
) -> Vec<Option<i64>> {
    let assignment = Assignment { types, architecture };
    for inputs in (0..=params.len()).rev() {
        let (offsets, end) = assignment.assign(&params[..inputs], &params[inputs..]);
        if end == arg_bytes {
            let slots = offsets.into_iter().map(|o| o.and_then(|o| argp.checked_add_unsigned(o)));
            return slots.chain(std::iter::repeat(None)).take(params.len()).collect();
        }
    }
    vec![None; params.len()]
}

/// The rules by which a machine's registers are given to values.
struct Assignment<'t> {
    types: &'t TypeTable,
    architecture: &'t Architecture,
}

impl Assignment<'_> {
    /// Spill offsets of `inputs`, and the size of all argument space.
    fn assign(&self, inputs: &[TypeId], results: &[TypeId]) -> (Vec<Option<u64>>, u64) {
        let mut stack = 0u64;
        let in_registers = self.place(inputs, &mut stack);
        stack = align(stack, 8);
        self.place(results, &mut stack);
        stack = align(stack, 8);
        let mut offsets = Vec::with_capacity(inputs.len());
        for (ty, in_registers) in inputs.iter().zip(in_registers) {
            offsets.push(in_registers.then(|| {
                let at = align(stack, alignment(*ty, self.types, &mut { MAX_VISITS }));
                stack = at.saturating_add(self.types.get(*ty).size);
                at
            }));
        }
        (offsets, align(stack, 8))
    }

    /// Which of `values` travel in registers; the others grow `stack`.
    fn place(&self, values: &[TypeId], stack: &mut u64) -> Vec<bool> {
        let mut taken = Taken::default();
        let mut assigned = Vec::with_capacity(values.len());
        for ty in values {
            let mut more = taken;
            let size = self.types.get(*ty).size;
            let fits = size > 0 && self.count(*ty, &mut more, &mut { MAX_VISITS }) && self.has(more);
            if fits {
                taken = more;
            } else {
                *stack = align(*stack, alignment(*ty, self.types, &mut { MAX_VISITS })).saturating_add(size);
            }
            assigned.push(fits);
        }
        assigned
    }

    /// Whether the machine has so many.
    fn has(&self, taken: Taken) -> bool {
        taken.ints <= self.architecture.int_args && taken.floats <= self.architecture.float_args
    }

    /// Adds the registers that a value takes; false if it cannot be in registers.
    fn count(&self, ty: TypeId, taken: &mut Taken, visits: &mut u32) -> bool {
        if *visits == 0 || !self.has(*taken) {
            return false;
        }
        *visits -= 1;
        let ty = self.types.get(ty);
        match &ty.kind {
            Kind::Scalar => match &*ty.name {
                "float32" | "float64" => taken.floats += 1,
                "complex64" | "complex128" => taken.floats += 2,
                _ => taken.ints += 1,
            },
            Kind::Pointer(_) | Kind::UnsafePointer | Kind::Func | Kind::Map { .. } | Kind::Chan { .. } => {
                taken.ints += 1;
            }
            Kind::String | Kind::Eface | Kind::Iface => taken.ints += 2,
            Kind::Slice(_) => taken.ints += 3,
            Kind::Array(_, 0) => {}
            Kind::Array(elem, 1) => return self.count(*elem, taken, visits),
            Kind::Array(..) | Kind::Opaque => return false,
            Kind::Struct(fields) => return fields.iter().all(|f| self.count(f.ty, taken, visits)),
        }
        true
    }
}

/// Registers in use.
#[derive(Copy, Clone, Default)]
struct Taken {
    ints: u32,
    floats: u32,
}

fn alignment(ty: TypeId, types: &TypeTable, visits: &mut u32) -> u64 {
    if *visits == 0 {
        return 8;
    }
    *visits -= 1;
    let ty = types.get(ty);
    match &ty.kind {
        Kind::Scalar => match ty.size {
            0 | 1 => 1,
            2..4 => 2,
            4..8 => 4,
            8 if &*ty.name == "complex64" => 4,
            _ => 8,
        },
        Kind::Array(elem, _) => alignment(*elem, types, visits),
        Kind::Struct(fields) => fields.iter().map(|f| alignment(f.ty, types, visits)).max().unwrap_or(1),
        _ => 8,
    }
}

const fn align(offset: u64, to: u64) -> u64 {
    offset.saturating_add(to - 1) / to * to
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::architecture::{AMD64, ARM64};
    use crate::model::types::{Field, Type};

    #[test]
    fn slots_follow_the_stack_arguments() {
        let mut types = TypeTable::default();
        let mut add = |name: &str, size, kind| types.push(Type { name: name.into(), size, kind, rtype_offset: 0 });
        let byte = add("uint8", 1, Kind::Scalar);
        let int = add("int", 8, Kind::Scalar);
        let float = add("float64", 8, Kind::Scalar);
        let string = add("string", 16, Kind::String);
        let slice = add("[]int", 24, Kind::Slice(int));
        let array = add("[2]int", 16, Kind::Array(int, 2));
        let field = |offset, ty| Field { name: "f".into(), offset, ty };
        let pair = add("pair", 16, Kind::Struct(vec![field(0, byte), field(8, int)]));
        // func(uint8, string, float64) (error-like result in registers): the result has no slot.
        assert_eq!(slots(&[byte, string, float, string], &types, &AMD64, 0, 32), [Some(0), Some(8), Some(24), None]);
        // Arrays of two go by the stack, in front of the spill slots.
        assert_eq!(slots(&[array, int], &types, &AMD64, 0, 24), [None, Some(16)]);
        // Three slices fill the registers: the pair is passed on the stack, the results begin again with the first register.
        assert_eq!(
            slots(&[slice, slice, slice, pair, slice], &types, &AMD64, 0, 16 + 72),
            [Some(16), Some(40), Some(64), None, None]
        );
        // Nothing adds up: no names.
        assert_eq!(slots(&[int], &types, &AMD64, 0, 1000), [None]);
        // arm64 has room for the pair, and the arguments begin above the slot of the return address.
        assert_eq!(
            slots(&[slice, slice, slice, pair, slice], &types, &ARM64, 8, 72 + 16 + 24),
            [Some(8), Some(32), Some(56), Some(80), Some(96)]
        );
    }
}
