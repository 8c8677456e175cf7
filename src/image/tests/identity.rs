use crate::address::Addr;
use crate::image::synth::{Core, Exe, Files, R, W, X, bytes, exe, with_process};
use crate::image::{Image, Process};

const BASE: u64 = 0x40_0000;

/// A core of `e` that holds `pages` bytes from its start.
fn core_of(e: &Exe, bias: u64, pages: usize) -> Core {
    let mut core = Core::of(e, bias);
    core.load(e.base + bias, R | X, 0x3000, e.page(0, pages));
    core.load(e.base + bias + 0x4000, R | W, 0x3000, bytes(0x3000, 9));
    core.files(&[(e.base + bias, e.base + bias + 0x5000, 0, "/srv/prog")]);
    core
}

fn refusal(e: &Exe, core: &Core) -> (String, String) {
    let files = Files::new(&e.build(), &core.build());
    let inputs = files.open().unwrap();
    let error = Process::parse(&inputs).unwrap_err();
    assert!(!error.to_string().contains('\n'), "one line");
    (error.to_string(), error.remedy_text().unwrap_or("").to_owned())
}

#[test]
fn another_build_id_is_refused_with_both_ids_and_the_right_path() {
    let e = exe(BASE);
    let other = Exe { gnu_id: *b"\x01\x02\x03\x04", ..e.clone() };
    let (message, remedy) = refusal(&other, &core_of(&e, 0, 0x1000));
    assert!(message.contains("does not belong to core dump"), "{message}");
    assert!(message.contains("the process has abcdef01, the executable 01020304"), "{message}");
    assert_eq!(remedy, "give the executable that the process ran: /srv/prog");
}

#[test]
fn equal_build_ids_are_enough() {
    // Same id, other code: a stripped or patched copy. The id decides.
    let e = exe(BASE);
    let other = Exe { seed: 1, ..e.clone() };
    with_process(&other.build(), &core_of(&e, 0, 0x3000).build(), |p| assert!(p.unwrap().incidents.is_empty()));
}

#[test]
fn without_ids_the_code_is_compared() {
    let e = exe(BASE);
    let other = Exe { seed: 1, ..e.clone() };
    let mut core = core_of(&e, 0, 0x3000);
    // No AT_PHDR, so nothing leads to the ids.
    core.notes.clear();
    core.thread(1, &[0; 27]);
    core.auxv(&[(9, BASE + 0x1000)]);
    let (message, _) = refusal(&other, &core);
    assert!(message.contains("machine code: 2 of 3 compared pages differ"), "{message}");
    with_process(&e.build(), &core.build(), |p| assert!(p.unwrap().incidents.is_empty()));
    // Breakpoints of a debugger.
    core.loads[0].bytes[0x1800] = 0xcc;
    with_process(&e.build(), &core.build(), |p| assert!(p.unwrap().incidents.is_empty()));
}

#[test]
fn without_any_evidence_it_is_accepted_and_counted() {
    let e = exe(BASE);
    let mut core = core_of(&e, 0, 0x1000);
    core.loads.remove(0);
    with_process(&e.build(), &core.build(), |p| {
        assert_eq!(p.unwrap().incidents.get("core.executable_not_verified"), 1);
    });
}

#[test]
fn entry_and_header_addresses_must_agree() {
    let e = exe(BASE);
    let fixed = |auxv: &[(u64, u64)]| {
        let mut core = core_of(&e, 0, 0x1000);
        core.notes.clear();
        core.thread(1, &[0; 27]);
        core.auxv(auxv);
        refusal(&e, &core).0
    };
    assert!(
        fixed(&[(9, BASE + 0x2000)])
            .contains("entry address: the process started at 0x402000, the executable starts at 0x401000")
    );
    let pie = exe(0);
    let bias = 0x5555_0000_0000;
    let floating = |auxv: &[(u64, u64)]| {
        let mut core = core_of(&pie, bias, 0x1000);
        core.notes.clear();
        core.thread(1, &[0; 27]);
        core.auxv(auxv);
        refusal(&pie, &core).0
    };
    assert!(floating(&[(9, bias + 0x1010)]).contains("differ in the page offset"));
    assert!(floating(&[(9, bias + 0x1000), (3, bias + 0x1040)]).contains("AT_PHDR one of 0x555500001000"));
}

#[test]
fn without_auxiliary_vector_the_file_name_gives_the_bias() {
    let e = exe(0);
    let bias = 0x5555_0000_0000;
    let mut core = core_of(&e, bias, 0x1000);
    core.notes.clear();
    core.thread(1, &[0; 27]);
    let (message, _) = refusal(&e, &core);
    assert!(message.contains("the core has no auxiliary vector (NT_AUXV)"), "{message}");
    let files = Files::new(&e.build(), &[0]);
    let name = files.exe.path().file_name().unwrap().to_str().unwrap();
    core.files(&[(bias, bias + 0x5000, 0, &format!("/elsewhere/{name}"))]);
    std::fs::write(files.core.path(), core.build()).unwrap();
    let inputs = files.open().unwrap();
    assert_eq!(Process::parse(&inputs).unwrap().load_bias, bias);
}

#[test]
fn registers_arrive_in_dwarf_order() {
    let e = exe(BASE);
    let mut core = core_of(&e, 0, 0x1000);
    // user_regs_struct: r15 r14 r13 r12 rbp rbx r11 r10 r9 r8 rax rcx rdx rsi rdi orig_rax rip cs eflags rsp ..
    let regs: [u64; 27] = std::array::from_fn(|i| 100 + i as u64);
    core.thread(4711, &regs);
    with_process(&e.build(), &core.build(), |p| {
        let p = p.unwrap();
        let t = &p.threads[1];
        assert_eq!((t.tid, t.signal, t.pc, t.sp), (4711, 6, 116, 119));
        let (rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp) = (110, 112, 111, 105, 113, 114, 104, 119);
        let r8_to_r15 = [109, 108, 107, 106, 103, 102, 101, 100];
        assert_eq!(t.dwarf_regs[..8], [rax, rdx, rcx, rbx, rsi, rdi, rbp, rsp]);
        assert_eq!(t.dwarf_regs[8..], r8_to_r15);
    });
}

#[test]
fn registers_of_arm64_arrive_in_dwarf_order() {
    let e = Exe { machine: 183, ..exe(BASE) };
    let mut core = core_of(&e, 0, 0x1000);
    // user_pt_regs: x0..x30 sp pc pstate
    let regs: [u64; 34] = std::array::from_fn(|i| 100 + i as u64);
    core.thread(4711, &regs);
    // One register is missing.
    core.thread(4712, &regs[..31]);
    with_process(&e.build(), &core.build(), |p| {
        let p = p.unwrap();
        assert_eq!((p.architecture.name, p.threads.len()), ("arm64", 2));
        assert_eq!(p.incidents.get("core.bad_note"), 1);
        let t = &p.threads[1];
        assert_eq!((t.tid, t.signal, t.pc, t.sp), (4711, 6, 132, 131));
        assert_eq!(t.dwarf_regs, (100..132).collect::<Vec<u64>>(), "x0 to x30, then sp");
    });
}

#[test]
fn without_headers_and_text_read_only_data_tells() {
    // As qemu writes it: a segment that begins with an ELF header is left out.
    let e = Exe { machine: 183, ..exe(BASE) };
    let mut core = Core::of(&e, 0);
    core.load(BASE, R | X, 0x3000, vec![]);
    core.load(BASE + 0x3000, R, 0x1000, e.page(0x3000, 0x4000));
    core.load(BASE + 0x4000, R | W, 0x3000, bytes(0x3000, 9));
    with_process(&e.build(), &core.build(), |p| {
        let p = p.unwrap();
        assert!(p.incidents.is_empty(), "{:?}", p.incidents);
        let mut text = [0; 16];
        p.image.read(Addr(BASE + 0x1000), &mut text).unwrap();
        assert_eq!(text[..], e.page(0x1000, 0x1010), "text comes from the executable");
    });
    let (message, _) = refusal(&Exe { seed: 1, ..e }, &core);
    assert!(message.contains("read-only data: 1 of 1 compared pages differ"), "{message}");
}

#[test]
fn damaged_notes_are_counted_and_a_core_without_threads_is_refused() {
    let e = exe(BASE);
    let mut core = core_of(&e, 0, 0x1000);
    core.note("CORE", 1, &[0; 100]);
    core.note("CORE", 0x4649_4c45, &[0xff; 64]);
    let mut too_many = vec![0; 16];
    too_many[..8].copy_from_slice(&(u64::MAX / 24).to_le_bytes());
    core.note("CORE", 0x4649_4c45, &too_many);
    core.note("LINUX", 1, &[0; 4]);
    core.notes.extend([4, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]);
    with_process(&e.build(), &core.build(), |p| {
        let p = p.unwrap();
        assert_eq!(p.incidents.get("core.bad_note"), 4);
        assert_eq!(p.threads.len(), 1);
    });
    core.notes.clear();
    let (message, _) = refusal(&e, &core);
    assert!(message.contains("expected a thread (NT_PRSTATUS) in the notes, found none"), "{message}");
}
