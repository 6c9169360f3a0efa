// Builds flannel's CNI plugin, which this module had until version 0.9; go.sum is the lock.
module firstboot/components/cni-flannel-0.9

go 1.26

require (
	github.com/containernetworking/cni v1.3.0 // indirect
	github.com/containernetworking/plugins v0.9.1 // indirect
	github.com/vishvananda/netns v0.0.4 // indirect
	golang.org/x/sys v0.23.0 // indirect
)

tool github.com/containernetworking/plugins/plugins/meta/flannel
