/*
 * A client of /dev/nitro_enclaves that knows the kernel's headers and nothing of cloister: static, so that no preloaded
 * library could play the driver for it. Prints a line a step: its name, then the result, or "errno N".
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/nitro_enclaves.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define MIB (1024ull * 1024)
#define PAGE (2 * MIB)
#define PAGES 32

static void tell(const char *step, long result)
{
	if (result < 0)
		printf("%s errno %d\n", step, errno);
	else
		printf("%s %ld\n", step, result);
	fflush(stdout);
}

static int create(void)
{
	uint64_t slot = 0;
	int device = open("/dev/nitro_enclaves", O_RDWR | O_CLOEXEC);
	int vm = ioctl(device, NE_CREATE_VM, &slot);

	if (vm < 0 || slot == 0 || !(fcntl(vm, F_GETFD) & FD_CLOEXEC))
		tell("create", vm < 0 ? -1 : -2);
	close(device);
	return vm;
}

static long region(int vm, uint64_t flags, uint64_t size, uint64_t address)
{
	struct ne_user_memory_region r = {flags, size, address};

	return ioctl(vm, NE_SET_USER_MEMORY_REGION, &r);
}

static long start(int vm, uint64_t flags, uint64_t cid)
{
	struct ne_enclave_start_info info = {flags, cid};
	int result = ioctl(vm, NE_START_ENCLAVE, &info);

	return result < 0 ? result : (long)info.enclave_cid;
}

static long add(int vm, uint32_t cpu)
{
	int result = ioctl(vm, NE_ADD_VCPU, &cpu);

	return result < 0 ? result : (long)cpu;
}

static long offset(int vm, uint64_t flags)
{
	struct ne_image_load_info info = {flags, 0};
	int result = ioctl(vm, NE_GET_IMAGE_LOAD_INFO, &info);

	return result < 0 ? result : (long)info.memory_offset;
}

static char *map(size_t size, int flags)
{
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	if (p == MAP_FAILED) {
		tell("mmap", -1);
		exit(2);
	}
	return p;
}

static void codes(void)
{
	char *small = map(3 * PAGE, 0);
	char *huge = map(PAGES * PAGE, MAP_HUGETLB);
	uint64_t aligned = ((uint64_t)small + PAGE - 1) & ~(PAGE - 1);
	uint64_t h = (uint64_t)huge;
	int device = open("/dev/nitro_enclaves", O_RDWR);
	int vm, second;
	long cpu;

	tell("vcpu on the device", add(device, 0));
	tell("unknown ioctl", ioctl(device, _IO(0xAE, 0x30)));
	tell("slot at no address", ioctl(device, NE_CREATE_VM, NULL));
	vm = create();
	tell("create on a slot", ioctl(vm, NE_CREATE_VM, &h));
	tell("image of type 0", offset(vm, 0));
	tell("image of type 2", offset(vm, 2));
	tell("image", offset(vm, NE_EIF_IMAGE));
	tell("region at no address", ioctl(vm, NE_SET_USER_MEMORY_REGION, NULL));
	tell("region flags", region(vm, 1, PAGE, h));
	tell("region size", region(vm, 0, MIB, h));
	tell("region alignment", region(vm, 0, PAGE, h + 4096));
	tell("region of the kernel", region(vm, 0, PAGE, 0xffff800000000000ull));
	tell("region of small pages", region(vm, 0, PAGE, aligned));
	tell("region of nothing", region(vm, 0, PAGE, 0x200000));
	tell("region without a page", region(vm, 0, 0, h));
	tell("start without memory", start(vm, 0, 0));
	tell("region", region(vm, 0, PAGE, h));
	tell("region twice", region(vm, 0, PAGE, h));
	tell("start flags", start(vm, 2, 0));
	tell("start with CID 1", start(vm, 0, 1));
	tell("start with CID 3", start(vm, 0, 3));
	tell("start with CID any", start(vm, 0, 0xffffffff));
	tell("start with a long CID", start(vm, 0, 1ull << 33));
	tell("start with 2 MiB", start(vm, 0, 0));
	tell("regions", region(vm, 0, (PAGES - 1) * PAGE, h + PAGE));
	tell("start without a CPU", start(vm, 0, 0));
	tell("vcpu 9999", add(vm, 9999));
	tell("vcpu of core 0", add(vm, 64));
	cpu = add(vm, 0);
	tell("vcpu", cpu);
	tell("start with half a core", start(vm, 0, 0));
	tell("vcpu twice", add(vm, cpu));
	tell("vcpu of the same core", add(vm, 0));
	tell("start without an image", start(vm, 0, 0));
	tell("start at no address", ioctl(vm, NE_START_ENCLAVE, NULL));
	second = create();
	tell("vcpu of another enclave's core", add(second, cpu));
	close(vm);
	usleep(200000);
	tell("vcpu of a core that is free again", add(second, cpu));
	tell("ioctl on a file", ioctl(0, NE_ADD_VCPU, &cpu));
	tell("ioctl on nothing", ioctl(999, NE_ADD_VCPU, &cpu));
	if (fork() == 0) {
		tell("vcpu from a child", add(second, 0));
		tell("region from a child", region(second, 0, PAGE, h));
		exit(0);
	}
	wait(NULL);
}

static long endpoint(int fd, int (*ask)(int, struct sockaddr *, socklen_t *), struct sockaddr_vm *address)
{
	socklen_t length = sizeof(*address);

	memset(address, 0, sizeof(*address));
	return ask(fd, (struct sockaddr *)address, &length);
}

static int sock(int type)
{
	return socket(AF_VSOCK, type, 0);
}

static long name(int fd, unsigned cid, unsigned port)
{
	struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};

	return bind(fd, (struct sockaddr *)&a, sizeof(a));
}

static long dial(int fd, unsigned cid, unsigned port)
{
	struct sockaddr_vm a = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};

	return connect(fd, (struct sockaddr *)&a, sizeof(a));
}

static void sockets(void)
{
	struct sockaddr_vm address;
	unsigned cid = 0;
	int domain = 0;
	socklen_t length = sizeof(domain);
	int a = sock(SOCK_STREAM), b = sock(SOCK_STREAM | SOCK_NONBLOCK), c = sock(SOCK_STREAM);

	tell("local cid", ioctl(open("/dev/vsock", O_RDONLY), IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) < 0 ? -1 : (long)cid);
	tell("datagram socket", sock(SOCK_DGRAM));
	tell("domain", getsockopt(a, SOL_SOCKET, SO_DOMAIN, &domain, &length) < 0 ? -1 : domain);
	tell("peer of nobody", endpoint(a, getpeername, &address));
	tell("accept before listen", accept(a, NULL, NULL));
	tell("bind to CID 7", name(a, 7, 5000));
	tell("bind", name(a, VMADDR_CID_ANY, 5000));
	tell("bind again", name(a, VMADDR_CID_ANY, 5001));
	tell("bind the same port", name(b, 3, 5000));
	tell("listen", listen(a, 5));
	endpoint(a, getsockname, &address);
	tell("bound port", address.svm_port);
	close(a);
	tell("bind a port that was closed", name(b, 3, 5000));
	tell("listen", listen(b, 5));
	tell("accept of nothing", accept(b, NULL, NULL));
	tell("bind to any port", name(c, VMADDR_CID_ANY, VMADDR_PORT_ANY));
	endpoint(c, getsockname, &address);
	tell("bound", address.svm_port != VMADDR_PORT_ANY);
	tell("connect to no enclave", dial(sock(SOCK_STREAM), 77, 1));
	tell("connect to no console", dial(sock(SOCK_STREAM), 0, 10077));
	tell("inet socket", socket(AF_INET, SOCK_STREAM, 0) >= 0);
}

static void *heartbeat(void *argument)
{
	int listener = *(int *)argument;
	struct sockaddr_vm peer;
	socklen_t length = sizeof(peer);
	unsigned char byte = 0;
	int fd = accept(listener, (struct sockaddr *)&peer, &length);

	tell("accept", fd < 0 ? -1 : 0);
	tell("heartbeat from", peer.svm_cid);
	endpoint(fd, getpeername, &peer);
	tell("peer", peer.svm_cid);
	tell("read", read(fd, &byte, 1));
	tell("byte", byte);
	tell("write", write(fd, &byte, 1));
	close(fd);
	return NULL;
}

static void nothing(int signal)
{
	(void)signal;
}

/* A whole life: memory, CPUs, heartbeat on a thread of its own, console, hangup. */
static int boot(const char *path, int debug)
{
	static char console[1 << 20];
	struct sigaction tick = {.sa_handler = nothing, .sa_flags = SA_RESTART};
	struct pollfd pollfd = {.events = POLLIN};
	char *huge = map(PAGES * PAGE, MAP_HUGETLB);
	int eif = open(path, O_RDONLY), vm = create(), listener = sock(SOCK_STREAM), fd, i;
	size_t used = 0;
	pthread_t thread;
	ssize_t n;
	long cid;

	tell("image", pread(eif, huge + offset(vm, NE_EIF_IMAGE), (PAGES - 4) * PAGE, 0) > 0);
	for (i = 0; i < PAGES; i++)
		if (region(vm, 0, PAGE, (uint64_t)huge + i * PAGE) < 0)
			tell("region", -1);
	add(vm, 0);
	tell("vcpu", add(vm, 0) > 0);
	tell("bind", name(listener, VMADDR_CID_ANY, 9000));
	tell("listen", listen(listener, 5));
	pthread_create(&thread, NULL, heartbeat, &listener);
	/* Signals take the starting thread out of its system call; it must not start twice, nor fail. */
	sigaction(SIGALRM, &tick, NULL);
	ualarm(5000, 5000);
	cid = start(vm, debug ? NE_ENCLAVE_DEBUG_MODE : 0, 0);
	ualarm(0, 0);
	tell("start", cid < 0 ? cid : cid > 3);
	tell("start again", start(vm, 0, 0));
	fd = sock(SOCK_STREAM);
	tell("console", dial(fd, 0, 10000 + cid));
	pthread_join(thread, NULL);
	pollfd.fd = vm;
	tell("poll", poll(&pollfd, 1, 60000));
	tell("events", pollfd.revents);
	while (debug && (n = read(fd, console + used, sizeof(console) - 1 - used)) > 0)
		used += n;
	if (debug)
		tell("console says hello", strstr(console, "hello from init") != NULL);
	tell("vcpu after its end", add(vm, 0));
	return 0;
}

/* Starts an enclave and leaves it running: what happens to it is the test's matter. */
static void leave(const char *path, int how)
{
	char *huge = map(PAGES * PAGE, MAP_HUGETLB);
	int eif = open(path, O_RDONLY), vm = create();

	pread(eif, huge + offset(vm, NE_EIF_IMAGE), (PAGES - 4) * PAGE, 0);
	region(vm, 0, PAGES * PAGE, (uint64_t)huge);
	add(vm, 0);
	add(vm, 0);
	tell("start", start(vm, 0, 0) > 3);
	if (how == 'k')
		kill(getpid(), SIGKILL);
	if (how == 'd' && fork() > 0)
		_exit(0);
	if (how == 'd') {
		setsid();
		poll(&(struct pollfd){.fd = vm}, 1, 60000);
		tell("daemon saw the end", 1);
	}
}

static void files(void)
{
	struct stat status;
	char text[600];
	ssize_t n;

	tell("stat", stat("/dev/nitro_enclaves", &status));
	tell("character device", S_ISCHR(status.st_mode));
	tell("access", access("/dev/nitro_enclaves", R_OK | W_OK));
	tell("no such file", open("/dev/nitro_enclaves2", O_RDWR));
	n = read(open("/sys/module/nitro_enclaves/parameters/ne_cpus", O_RDONLY), text, sizeof(text));
	printf("pool %.*s", (int)n, text);
	n = read(open("/sys/devices/virtual/dmi/id/board_asset_tag", O_RDONLY), text, sizeof(text));
	printf("tag %.*s", (int)n, text);
	tell("bad path", open((char *)1, O_RDONLY));
}

static uint64_t next(void)
{
	static uint64_t state = 0x9e3779b97f4a7c15ull;

	state ^= state << 13;
	state ^= state >> 7;
	return state ^= state << 17;
}

/* Every call that is looked at, with nonsense: the emulator must outlive it. Prints how many of them succeeded. */
static void nonsense(int rounds)
{
	static const int calls[] = {
		SYS_open, SYS_openat, SYS_openat2, SYS_stat, SYS_lstat, SYS_newfstatat, SYS_statx, SYS_access,
		SYS_faccessat, SYS_faccessat2, SYS_ioctl, SYS_ioctl, SYS_ioctl, SYS_socket, SYS_bind, SYS_listen,
		SYS_connect, SYS_accept, SYS_accept4, SYS_getsockname, SYS_getpeername, SYS_setsockopt, SYS_getsockopt,
	};
	static const uint64_t commands[] = {NE_CREATE_VM, NE_ADD_VCPU, NE_GET_IMAGE_LOAD_INFO,
		NE_SET_USER_MEMORY_REGION, NE_START_ENCLAVE, IOCTL_VM_SOCKETS_GET_LOCAL_CID};
	static char paths[][64] = {"/dev/nitro_enclaves", "/dev/vsock", "/sys/module/nitro_enclaves/parameters/ne_cpus", ""};
	static uint64_t memory[512];
	struct sigaction tick = {.sa_handler = nothing};
	int device = open(paths[0], O_RDWR), vm = create(), listener = sock(SOCK_STREAM | SOCK_NONBLOCK);
	int fds[] = {device, vm, listener, sock(SOCK_STREAM | SOCK_NONBLOCK), open(paths[1], O_RDONLY), -1, 999};
	int last = fds[4];
	long good = 0;

	name(listener, VMADDR_CID_ANY, 6000);
	listen(listener, 1);
	sigaction(SIGALRM, &tick, NULL);
	for (int i = 0; i < rounds; i++) {
		uint64_t args[6];
		int call = calls[next() % (sizeof(calls) / sizeof(*calls))];

		for (int j = 0; j < 6; j++) {
			uint64_t pointer = (uint64_t)&memory[next() % 512];
			uint64_t choices[] = {next(), next() % 64, 0, ~0ull, pointer, pointer, (uint64_t)paths[next() % 4],
				fds[next() % 7], fds[next() % 7], commands[next() % 6]};

			memory[next() % 512] = choices[next() % 10];
			args[j] = choices[next() % 10];
		}
		if (next() % 2)
			args[0] = fds[next() % 7];
		if (call == SYS_ioctl && next() % 4)
			args[1] = commands[next() % 6];
		if (call == SYS_socket) {
			args[0] = AF_VSOCK;
			args[1] = next() % 2 ? SOCK_STREAM | SOCK_NONBLOCK : args[1];
		}
		/* Half of them look right at first sight. */
		if (next() % 2) {
			memory[0] = AF_VSOCK | (next() % 9000) << 32;
			memory[1] = next() % 20;
			memory[2] = next() % 32;
			args[call == SYS_open || call == SYS_stat || call == SYS_lstat || call == SYS_access ? 0 : 1] =
				call == SYS_ioctl ? commands[next() % 6] :
				call >= SYS_socket && call <= SYS_getsockopt ? (uint64_t)memory : (uint64_t)paths[next() % 4];
			args[2] = call == SYS_bind || call == SYS_connect ? sizeof(struct sockaddr_vm) : (uint64_t)&memory[2];
		}
		/* Nothing may be made or changed: O_PATH opens whatever is named, and reads nothing. */
		if (call == SYS_open)
			args[1] = O_PATH;
		if (call == SYS_openat)
			args[2] = O_PATH;
		if (call == SYS_openat2)
			args[2] = 0;
		ualarm(20000, 20000);
		long result = syscall(call, args[0], args[1], args[2], args[3], args[4], args[5]);
		ualarm(0, 0);
		good += result >= 0;
		/* Descriptors that were made. */
		for (int fd = last + 1; result > last && fd < last + 8; fd++)
			close(fd);
	}
	tell("some succeeded", good > rounds / 100);
	tell("and it still works", offset(create(), NE_EIF_IMAGE));
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	int vm;

	if (!strcmp(verb, "codes"))
		codes();
	else if (!strcmp(verb, "files"))
		files();
	else if (!strcmp(verb, "sockets"))
		sockets();
	else if (!strcmp(verb, "nonsense"))
		nonsense(atoi(argv[2]));
	else if (!strcmp(verb, "boot"))
		return boot(argv[2], argc > 3);
	else if (!strcmp(verb, "leave"))
		leave(argv[2], argv[3][0]);
	else if (!strcmp(verb, "faults")) {
		vm = create();
		tell("image", offset(vm, NE_EIF_IMAGE));
		tell("region", region(vm, 0, PAGE, 0));
		tell("vcpu", add(vm, 0));
		tell("start", start(vm, 0, 0));
	} else if (!strcmp(verb, "limits")) {
		char *huge = map(3 * PAGE, MAP_HUGETLB);

		vm = create();
		tell("region", region(vm, 0, PAGE, (uint64_t)huge));
		tell("region", region(vm, 0, PAGE, (uint64_t)huge + PAGE));
		tell("region over the limit", region(vm, 0, PAGE, (uint64_t)huge + 2 * PAGE));
		tell("vcpu", add(vm, 0));
		create();
		tell("vcpu", add(vm, 0));
		tell("vcpu of an empty pool", add(vm, 0));
	} else
		return 1;
	return 0;
}
