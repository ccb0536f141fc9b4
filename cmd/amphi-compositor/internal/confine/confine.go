// Package confine takes away from a process what a decoder never needs, so that a
// publisher whose stream takes it over gains little: no new program, no network, no
// file written or removed, no other process touched. What is open stays open.
package confine

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// auditArch values of linux/audit.h for what we build for.
const (
	archAMD64 = 0xc000003e
	archARM64 = 0xc00000b7
)

// denied are the system calls that answer EPERM, on every architecture.
func denied() []uint32 {
	return append([]uint32{
		unix.SYS_EXECVE, unix.SYS_EXECVEAT,
		unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN, unix.SYS_ACCEPT, unix.SYS_ACCEPT4,
		unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_KCMP,
		unix.SYS_KILL, unix.SYS_TKILL, unix.SYS_RT_SIGQUEUEINFO, unix.SYS_RT_TGSIGQUEUEINFO, unix.SYS_PIDFD_SEND_SIGNAL,
		unix.SYS_SETPRIORITY, unix.SYS_IOPRIO_SET, unix.SYS_SCHED_SETAFFINITY, unix.SYS_SCHED_SETSCHEDULER, unix.SYS_SCHED_SETPARAM, unix.SYS_SCHED_SETATTR,
		unix.SYS_MIGRATE_PAGES, unix.SYS_MOVE_PAGES, unix.SYS_PROCESS_MADVISE, unix.SYS_PROCESS_MRELEASE,
		unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT, unix.SYS_UNSHARE, unix.SYS_SETNS,
		unix.SYS_MKDIRAT, unix.SYS_UNLINKAT, unix.SYS_RENAMEAT2, unix.SYS_LINKAT, unix.SYS_SYMLINKAT, unix.SYS_MKNODAT,
		unix.SYS_FCHMOD, unix.SYS_FCHMODAT, unix.SYS_FCHOWN, unix.SYS_FCHOWNAT, unix.SYS_TRUNCATE, unix.SYS_OPENAT2,
		unix.SYS_SETUID, unix.SYS_SETGID, unix.SYS_SETRESUID, unix.SYS_SETRESGID, unix.SYS_CAPSET,
		unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_IO_URING_SETUP,
		unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
		unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT, unix.SYS_SETTIMEOFDAY,
	}, deniedHere()...)
}

// own are calls that name a process first, and answer EPERM unless that is this one: the runtime interrupts its threads by
// tgkill, the C library asks for limits by prlimit64. The node runs as the same user where it is not root.
var own = []uint32{unix.SYS_TGKILL, unix.SYS_PRLIMIT64}

// Apply confines all threads of the process, for good. An error says that the kernel
// offers no such thing (or forbids it); the process then goes on as it was.
func Apply() error {
	arch := uint32(archAMD64)
	if runtime.GOARCH == "arm64" {
		arch = archARM64
	}
	filter := program(arch, denied(), uint32(os.Getpid()))
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	r, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&prog)))
	if errno != 0 {
		return fmt.Errorf("filtering system calls: %w", errno)
	}
	if r != 0 {
		return fmt.Errorf("filtering system calls: thread %d has a filter of its own", r)
	}
	return nil
}

// program is the filter (seccomp(2)): the data begins with the number of the call and
// the architecture; the low halves of the arguments follow from offset 16, 8 apart.
func program(arch uint32, calls []uint32, self uint32) []unix.SockFilter {
	const (
		load    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
		equal   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
		atLeast = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
		anyBit  = unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K
		answer  = unix.BPF_RET | unix.BPF_K

		number, architecture, firstArg, thirdArg = 0, 4, 16, 32

		writing = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC
	)
	refuse := uint32(unix.SECCOMP_RET_ERRNO | unix.EPERM)
	p := []unix.SockFilter{
		{Code: load, K: architecture},
		{Code: equal, Jt: 1, K: arch},
		{Code: answer, K: refuse}, // another architecture's numbers
		{Code: load, K: number},
		{Code: atLeast, Jf: 1, K: 0x40000000}, // x32's numbers
		{Code: answer, K: refuse},
		{Code: equal, Jf: 4, K: unix.SYS_OPENAT}, // for reading only
		{Code: load, K: thirdArg},
		{Code: anyBit, Jf: 1, K: writing},
		{Code: answer, K: refuse},
		{Code: answer, K: unix.SECCOMP_RET_ALLOW},
	}
	for _, c := range own {
		p = append(p, unix.SockFilter{Code: equal, Jf: 5, K: c}, unix.SockFilter{Code: load, K: firstArg},
			unix.SockFilter{Code: equal, Jt: 2, K: self}, unix.SockFilter{Code: equal, Jt: 1}, // 0 is this one, too
			unix.SockFilter{Code: answer, K: refuse}, unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW})
	}
	for _, c := range calls {
		p = append(p, unix.SockFilter{Code: equal, Jf: 1, K: c}, unix.SockFilter{Code: answer, K: refuse})
	}
	return append(p, unix.SockFilter{Code: answer, K: unix.SECCOMP_RET_ALLOW})
}
