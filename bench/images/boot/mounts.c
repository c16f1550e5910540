/*
 * The least that makes the system of the boot contract, section 3 steps 1 to 3, and then becomes the
 * program: no link to the host, no child, nothing to wait for, and no error is looked at.
 */
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define HOSTNAME "boot"

static void put(const char *path, int flags, const char *text)
{
	int fd = open(path, O_WRONLY | flags, 0644);
	if (fd >= 0 && write(fd, text, strlen(text)) >= 0)
		close(fd);
}

static void delegate_controllers(void)
{
	char names[256], *rest = names;
	int fd = open("/sys/fs/cgroup/cgroup.controllers", O_RDONLY);
	ssize_t length = read(fd, names, sizeof names - 1);
	close(fd);
	if (length <= 0)
		return;
	names[length] = '\0';
	char all[512] = "";
	for (char *name; (name = strsep(&rest, " \n")) != NULL;)
		if (*name != '\0')
			strcat(strcat(strcat(all, "+"), name), " ");
	put("/sys/fs/cgroup/cgroup.subtree_control", 0, all);
}

static void loopback_up(void)
{
	struct ifreq request = {.ifr_name = "lo"};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	ioctl(fd, SIOCGIFFLAGS, &request);
	request.ifr_flags |= IFF_UP | IFF_RUNNING;
	ioctl(fd, SIOCSIFFLAGS, &request);
	close(fd);
}

int main(void)
{
	static char *const argv[] = {"/program", NULL};
	static char *const env[] = {"HOME=/", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", NULL};
	const unsigned long none = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	mount("proc", "/proc", "proc", none, NULL);
	mount("sysfs", "/sys", "sysfs", none, NULL);
	mount(NULL, "/dev", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID, NULL);
	mkdir("/dev/pts", 0755);
	mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666");
	mkdir("/dev/shm", 0755);
	mount("tmpfs", "/dev/shm", "tmpfs", none, "mode=1777");
	mkdir("/dev/mqueue", 0755);
	mount("mqueue", "/dev/mqueue", "mqueue", none, NULL);
	mount("tmpfs", "/run", "tmpfs", MS_NOSUID | MS_NODEV, "mode=755");
	mount("cgroup2", "/sys/fs/cgroup", "cgroup2", none, "nsdelegate");
	delegate_controllers();
	symlink("/proc/self/fd", "/dev/fd");
	symlink("/proc/self/fd/0", "/dev/stdin");
	symlink("/proc/self/fd/1", "/dev/stdout");
	symlink("/proc/self/fd/2", "/dev/stderr");
	loopback_up();
	put("/proc/sys/net/ipv4/ip_unprivileged_port_start", 0, "0");
	put("/proc/sys/net/ipv4/ping_group_range", 0, "0 2147483647");
	sethostname(HOSTNAME, strlen(HOSTNAME));
	put("/etc/hostname", O_CREAT, HOSTNAME "\n");
	put("/etc/hosts", O_CREAT,
	    "127.0.0.1\tlocalhost\n"
	    "::1\tlocalhost ip6-localhost ip6-loopback\n"
	    "fe00::0\tip6-localnet\n"
	    "ff00::0\tip6-mcastprefix\n"
	    "ff02::1\tip6-allnodes\n"
	    "ff02::2\tip6-allrouters\n"
	    "127.0.1.1\t" HOSTNAME "\n");
	put("/etc/resolv.conf", O_CREAT, "# This machine has no name server.\n");
	reboot(RB_DISABLE_CAD);
	execve(argv[0], argv, env);
	return 1;
}
