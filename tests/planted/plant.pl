# Plants in /planted whatever a file system can hold. Perl, because every Debian image has it and
# its syscall() needs no setfattr, setfacl or setcap.
use strict;
use warnings;

my ($SETXATTR, $LSETXATTR) = (188, 189);    # x86_64

sub file {
    my ($name, $data) = @_;
    open my $file, '>', $name or die "$name: $!";
    print $file $data;
    close $file or die "$name: $!";
}

sub run { system(@_) == 0 or die "@_"; }

sub xattr {
    my ($name, $key, $value) = @_;
    my $flags = 0;
    syscall($SETXATTR, $name, $key, $value, length $value, $flags) == 0 or die "$name $key: $!";
}

sub acl {
    # posix_acl_xattr.h: version 2, then tag, permissions, id
    return pack 'V' . 'vvV' x (@_ / 3), 2, @_;
}

my $NONE = 0xffffffff;

mkdir '/planted' or die;
chdir '/planted' or die;
umask 0;

file 'plain', "content\n";
chown 1234, 4321, 'plain' or die;
chmod 04751, 'plain' or die;
link 'plain', 'hard' or die;
symlink 'plain', 'soft' or die;
symlink '/nowhere/at/all', 'dangling' or die;
symlink 'x' x 300, 'long' or die;
run 'mknod', 'character', 'c', '10', '200';
run 'mknod', 'block', 'b', '7', '300';
run 'mkfifo', '-m', '0620', 'fifo';
mkdir 'empty' or die;
chmod 01777, 'empty' or die;
mkdir 'shared' or die;
chown 0, 50, 'shared' or die;
chmod 02775, 'shared' or die;
file 'nobodys', '';
chown 4294967294, 4294967294, 'nobodys' or die;

file 'sparse', 'head';
open my $sparse, '+<', 'sparse' or die;
truncate $sparse, (64 << 20) + 3 or die;
seek $sparse, 32 << 20, 0 or die;
print $sparse 'middle';
close $sparse or die;

file "name with \xc3\xbc", 'utf-8';
file "latin1 \xfc \xff", 'no text';
file "new\nline", 'two lines';
file "quo\"te '\\ \t\$x;*", 'quotes';
file '-n', 'an option';
file ' spaces ', 'spaces';
file 'x' x 255, 'long';
my $deep = 'deep';
for (1 .. 20) {
    mkdir $deep or die;
    $deep .= '/' . 'd' x 100;
}
mkdir $deep or die;
file "$deep/file", 'deep';

for (['old', 0], ['older', -86400], ['dated', 1000000000]) {
    my ($name, $time) = @$_;
    file $name, $name;
    utime $time, $time, $name or die;
}

file 'noted', 'noted';
xattr 'noted', 'user.note', 'hello world';
xattr 'noted', 'user.empty', '';
xattr 'noted', 'user.bytes', "\0\xff\n\"=\\ ";
xattr 'noted', "user.odd \"name\" \xc3\xbc", 'v';
link 'noted', 'noted too' or die;
file 'full', 'full';
xattr 'full', 'user.big', 'b' x 3800;
xattr "new\nline", 'user.note', 'of two lines';
xattr "new\nline", 'user.other', "\n";
xattr "quo\"te '\\ \t\$x;*", 'user.note', 'of quotes';
xattr "latin1 \xfc \xff", "user.\xff", "\xfe";
xattr "$deep/file", 'user.deep', 'deep';
xattr 'shared', 'user.directory', 'd';

file 'listed', 'listed';
chmod 0664, 'listed' or die;
xattr 'listed', 'system.posix_acl_access',
  acl(1, 6, $NONE, 2, 6, 1234, 4, 4, $NONE, 8, 4, 55, 0x10, 6, $NONE, 0x20, 4, $NONE);
mkdir 'lists' or die;
xattr 'lists', 'system.posix_acl_default',
  acl(1, 7, $NONE, 2, 7, 7, 4, 5, $NONE, 0x10, 7, $NONE, 0x20, 0, $NONE);

run 'cp', '/bin/true', 'capable';
chmod 0755, 'capable' or die;
# cap_net_bind_service+ep, revision 2: linux/capability.h
xattr 'capable', 'security.capability', pack 'V5', 0x02000001, 1 << 10, 0, 0, 0;
