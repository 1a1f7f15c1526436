import ctypes, os, signal, struct, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
address, length = ctypes.c_void_p, ctypes.c_size_t
libc.mmap.restype = libc.mremap.restype = address
libc.mmap.argtypes = [address, length, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mremap.argtypes = [address, length, length, ctypes.c_int, address]
libc.munmap.argtypes = [address, length]
libc.mprotect.argtypes = [address, length, ctypes.c_int]
libc.madvise.argtypes = [address, length, ctypes.c_int]
PAGE = 4096
DONTNEED, FREE, DONTFORK, WIPEONFORK = 4, 8, 10, 18

def must(result):
    if result in (-1, 2**64 - 1): raise OSError(ctypes.get_errno())
    return result
def anonymous(pages, at=None):
    return must(libc.mmap(at, pages * PAGE, 3, 0x32 if at else 0x22, -1, 0))
def unmap(at, pages): must(libc.munmap(at, pages * PAGE))
def advise(at, pages, advice): must(libc.madvise(at, pages * PAGE, advice))
def move(at, pages, to=None, new_pages=None):
    return must(libc.mremap(at, pages * PAGE, (new_pages or pages) * PAGE, 3 if to else 1, to))
def content(number): return struct.pack('<Q', number * 0x9e3779b97f4a7c15 % 2**64) * 512
ZERO = bytes(PAGE)
def fill(at, pages, first=0):
    for i in range(pages): ctypes.memmove(at + i * PAGE, content(first + i), PAGE)
def filled(pages, first=0):
    at = anonymous(pages); fill(at, pages, first); return at
def wrong(what, at, i, got):
    kind = 'zeros' if got == ZERO else got[:16].hex()
    print('WRONG', what, hex(at), 'page', i, 'is', kind, flush=True); os._exit(1)
def same(at, pages, first=0, what='pattern', order=None):
    for i in order or range(pages):
        got = ctypes.string_at(at + i * PAGE, PAGE)
        if got != content(first + i): wrong(what, at, i, got)
def zeros(at, pages, what='zeros'):
    for i in range(pages):
        got = ctypes.string_at(at + i * PAGE, PAGE)
        if got != ZERO: wrong(what, at, i, got)
def wait_for_go():
    print('ready', flush=True)
    while not os.path.exists('/go'): time.sleep(0.005)
def child(work):
    pid = os.fork()
    if pid: return pid
    try: work(); os._exit(0)
    except BaseException as error: print('WRONG', repr(error), flush=True); os._exit(1)
def join(*pids):
    for pid in pids:
        _, status = os.waitpid(pid, 0)
        if status: print('WRONG child', pid, 'ended with', status, flush=True); os._exit(1)
def done():
    print('all right', flush=True)
    while True: time.sleep(1)
