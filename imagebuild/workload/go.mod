module firstboot.local/demo

go 1.24
