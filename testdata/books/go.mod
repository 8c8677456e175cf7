module goref.test/books

go 1.24

require goref.test/fixtures v0.0.0

replace goref.test/fixtures => ../programs
