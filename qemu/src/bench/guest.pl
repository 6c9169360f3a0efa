#!/usr/bin/perl
# Runs the joining program on the device and accounts for it. Put there by `qemu bench`; see qemu/src/bench/mod.rs.
# What it runs, and with which token, comes as a systemd credential: it must not be on the disk for any other reason.
use strict;
use warnings;
use POSIX ':sys_wait_h';

$| = 1;
system('/usr/bin/firstboot', '--until', 'runtime') == 0 or die "bench: failed: firstboot --until runtime\n";
# firstboot begins to start it and goes on; here both programs find it running.
system('systemctl', 'start', 'containerd.service') == 0 or die "bench: failed: systemctl start containerd.service\n";
open(my $file, '<', "$ENV{CREDENTIALS_DIRECTORY}/bench.join") or die "bench: failed: no credential bench.join: $!\n";
chomp(my $line = <$file>);
my @join = split(/ /, $line);

# What was installed before is not the join's.
my $before = children();
print "bench: start\n";
my $pid = fork() // die "bench: failed: fork: $!\n";
if ($pid == 0) { exec(@join) or die "bench: failed: exec $join[0]: $!\n" }
my $peak = 0;
my %beside;
while (waitpid($pid, WNOHANG) == 0) {
    # High-water marks of the program and of its part in a unit of its own; what it starts is not counted.
    my $now = mark($pid);
    for my $other (parts($pid)) {
        $now += mark($other);
        $beside{$other} = ticks($other) || $beside{$other};
    }
    $peak = $now if $now > $peak;
    select(undef, undef, undef, 0.05);
}
my $code = $? >> 8;
my $cpu = children() - $before;
# Its parent does not wait for that part. Counted is the time at its last sample, a twentieth of a second before its end.
$cpu += $_ / POSIX::sysconf(POSIX::_SC_CLK_TCK()) for grep { defined } values %beside;
# The stretch that is compared ends at Ready; what firstboot does beyond it, destroying the seed, kubeadm does not do.
if ($join[0] =~ m{/firstboot$}) { $code ||= system('/usr/bin/firstboot') >> 8 }
printf "bench: end code=%d cpu=%.2f peak=%d\n", $code, $cpu, $peak;

# Other processes of the same program.
sub parts {
    my ($not) = @_;
    my @found;
    for my $comm (glob '/proc/[0-9]*/comm') {
        open(my $file, '<', $comm) or next;
        my $name = <$file> // '';
        my ($id) = $comm =~ m{/(\d+)/};
        push @found, $id if $name eq "firstboot\n" && $id != $not && $join[0] =~ m{/firstboot$};
    }
    return @found;
}

# Most memory that a process has held, KiB.
sub mark {
    my ($id) = @_;
    open(my $status, '<', "/proc/$id/status") or return 0;
    while (<$status>) { return $1 if /^VmHWM:\s+(\d+) kB/ }
    return 0;
}

# CPU time of a process, in ticks (proc_pid_stat(5), fields 14 and 15).
sub ticks {
    my ($id) = @_;
    open(my $stat, '<', "/proc/$id/stat") or return undef;
    my @fields = split(/ /, (<$stat> // '') =~ s/^.*\) //r);
    return ($fields[11] // 0) + ($fields[12] // 0);
}

# CPU seconds of all programs that ended so far and were waited for.
sub children {
    my ($user, $system) = (times)[2, 3];
    return $user + $system;
}
