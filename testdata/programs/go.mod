module goref.test/fixtures

go 1.19
