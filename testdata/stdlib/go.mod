module goref.test/stdlib

go 1.17

require goref.test/fixtures v0.0.0

replace goref.test/fixtures => ../programs
