use goref_fast::image::{Inputs, Process};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let inputs = Inputs::open(a[1].as_ref(), a[2].as_ref(), None).unwrap();
    let process = Process::parse(&inputs).unwrap();
    let d = goref_fast::model::dwarf::DebugInfo::load(&process.executable).unwrap();
    println!("{:?}", d.incidents);
    for n in &a[3..] {
        match d.types.find(n) {
            Some(id) => println!("{id:?} {:#?}", d.types.get(id)),
            None => println!("{n}: none"),
        }
    }
}
