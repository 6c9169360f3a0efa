#!/usr/bin/perl
# Runs the joining program on the device and accounts for it. Put there by `qemu bench`; see qemu/src/bench/mod.rs.
# What it runs, and with which token, comes as a systemd credential: it must not be on the disk for any other reason.
use strict;
use warnings;
use POSIX ':sys_wait_h';

$| = 1;
system('/usr/bin/firstboot', '--until', 'images') == 0 or die "bench: failed: firstboot --until images\n";
open(my $file, '<', "$ENV{CREDENTIALS_DIRECTORY}/bench.join") or die "bench: failed: no credential bench.join: $!\n";
chomp(my $line = <$file>);
my @join = split(/ /, $line);

# What was installed before is not the join's.
my $before = children();
print "bench: start\n";
my $pid = fork() // die "bench: failed: fork: $!\n";
if ($pid == 0) { exec(@join) or die "bench: failed: exec $join[0]: $!\n" }
my $peak = 0;
while (waitpid($pid, WNOHANG) == 0) {
    # High-water mark of the program alone; what it starts is not counted.
    if (open(my $status, '<', "/proc/$pid/status")) {
        while (<$status>) { $peak = $1 if /^VmHWM:\s+(\d+) kB/ }
    }
    select(undef, undef, undef, 0.1);
}
my $code = $? >> 8;
my $cpu = children() - $before;
# The stretch that is compared ends at Ready; what firstboot does beyond it, destroying the seed, kubeadm does not do.
if ($join[0] =~ m{/firstboot$}) { $code ||= system('/usr/bin/firstboot') >> 8 }
printf "bench: end code=%d cpu=%.2f peak=%d\n", $code, $cpu, $peak;

# CPU seconds of all programs that ended so far and were waited for.
sub children {
    my ($user, $system) = (times)[2, 3];
    return $user + $system;
}
