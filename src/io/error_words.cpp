#include "io/error_words.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <string>

namespace nvmf::io {
namespace {

/// Linux has 133, and none above 4095 can be one: the kernel returns pointers in that way.
constexpr int kErrnoMax = 4095;

constexpr ErrnoWords kWords[] = {
    {EPERM, "this user may not do that", "it as root, or with the capability that it needs"},
    {ENOENT, "there is no such file or socket, or the target has no such subsystem",
     "`nvmf list` for connections, `nvmf discover` for the subsystems of a target"},
    {EINTR, "a signal came in between", "it again"},
    {EIO, "reading or writing failed for good: a command was refused, or the target is lost",
     "`nvmf list`, which tells the state of the connection, then `nvmf smart-log`"},
    {ENXIO, "there is no such device", "`nvmf list`, which shows what is connected"},
    {EBADF, "the file is not open for that", "it again, and report it"},
    {EAGAIN, "it cannot be done just now", "it again later"},
    {ENOMEM, "this machine has no memory left for that",
     "it again when other programs have ended, or fewer and shorter queues"},
    {EACCES, "this user may not do that, or the target does not allow this host",
     "to look at the rights of the file and at the firewall, or to allow the host's NQN on the "
     "target"},
    {EBUSY, "it is in use, or the target has no controller free",
     "it again later, or disconnect another host"},
    {EEXIST, "there is one already", "another name"},
    {ENODEV, "there is no such device or interface",
     "`ip link`, which shows the interfaces that there are"},
    {EINVAL, "a value is not allowed", "the limits that the manual gives for it"},
    {ENFILE, "this machine has as many files open as it can",
     "it again when other programs have ended, or a larger fs.file-max"},
    {EMFILE, "this process has as many files open as it may", "a larger `ulimit -n`"},
    {ENOSPC, "there is no room left", "to remove or deallocate something first"},
    {EROFS, "it can only be read", "another place, or to make it writable on the target"},
    {EPIPE, "the other side had closed the connection while this one was sending",
     "its log for the reason, and to connect again"},
    {ERANGE, "a number is too large or too small", "the limits that the manual gives for it"},
    {ENAMETOOLONG, "a name is too long", "a shorter one: 107 bytes for a socket, 223 for an NQN"},
    {EOPNOTSUPP, "it is not supported here", "it without the option that asks for it"},
    {EBADE, "another host has a reservation of the namespace",
     "to let that host release the reservation"},
    {ENODATA, "the medium could not give the data back",
     "a copy of the data, and `nvmf smart-log` for the state of the medium"},
    {ENOLINK, "the way to the target failed",
     "it again when `nvmf list` shows the connection as live"},
    {EPROTO, "the other side broke the protocol, or finds that this one did",
     "to connect again, and report it with a capture of the connection"},
    {EBADMSG, "what came in cannot be read",
     "it again, then data digests (--data-digest) if it recurs"},
    {EILSEQ, "the data does not fit its protection information", "the data from another copy"},
    {EREMOTEIO, "the target refused the command",
     "`nvmf explain` with the status that the message names"},
    {EADDRINUSE, "somebody else listens at that address",
     "another port or path; `ss -ltnp` tells who"},
    {EADDRNOTAVAIL, "no interface of this machine has that address, or no local port is left",
     "`ip address`, which shows the addresses that there are, for --host-traddr"},
    {ENETDOWN, "the interface is down", "`ip link set up` for it"},
    {ENETUNREACH, "there is no way to that network",
     "`ip route get ADDRESS`, and another --host-iface"},
    {ENETRESET, "the network dropped the connection", "to connect again"},
    {ECONNABORTED, "the connection was ended before it was ready",
     "the log of the target, and to connect again"},
    {ECONNRESET, "the other side reset the connection",
     "the log of the target for the reason, and to connect again"},
    {ENOBUFS, "this machine has no buffers left for the network", "fewer or shorter queues"},
    {EISCONN, "it is connected already", "`nvmf list`, which shows what is connected"},
    {ENOTCONN, "there is no connection", "`nvmf list`, which tells whether it is being made again"},
    {ESHUTDOWN, "the connection is being ended", "to connect again"},
    {ETIMEDOUT, "no answer came in time",
     "whether the address is right and no firewall drops the packets (`nc -vz HOST PORT`)"},
    {ECONNREFUSED, "nothing listens at that address and port",
     "to start the target there, or the port that it listens on: 4420, or 8009 for discovery"},
    {EHOSTDOWN, "the host does not answer", "whether it is switched on (`ping`)"},
    {EHOSTUNREACH, "there is no way to that host",
     "`ip route get ADDRESS` and `ping`: it is off, or a firewall refuses"},
    {EALREADY, "that is under way already", "to wait for its end"},
    {EINPROGRESS, "that is under way", "to wait for its end"},
    {ESTALE, "what was there is no longer the same", "to connect again"},
    {EAFNOSUPPORT, "the two addresses are of different kinds, or this machine has no such kind",
     "two IPv4 or two IPv6 addresses"},
    {ECANCELED, "it was ended before it was done", "it again"},
    {EKEYREJECTED,
     "the target wants this host to authenticate, and refused its key or had none from it",
     "the key that the target has for this host NQN"},
    {EKEYEXPIRED, "the key is no longer valid", "a new key on host and target"},
    {EKEYREVOKED, "the key was withdrawn", "a new key on host and target"},
    {ENOKEY, "there is no key for that", "to give this host the key that the target has for it"},
};

}  // namespace

const ErrnoWords* errno_words(int code) {
  const auto* found = std::ranges::find(kWords, code, &ErrnoWords::code);
  return found == std::end(kWords) ? nullptr : found;
}

std::string try_words(int code) {
  const ErrnoWords* words = errno_words(code);
  return words == nullptr ? std::string() : "; try " + std::string(words->hint);
}

std::optional<int> errno_from_name(std::string_view name) {
  std::string upper(name);
  std::ranges::transform(upper, upper.begin(), [](char c) {
    return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
  });
  // Two names for one number each.
  if (upper == "EWOULDBLOCK") return EWOULDBLOCK;
  if (upper == "ENOTSUP" || upper == "EOPNOTSUPP") return EOPNOTSUPP;
  for (int code = 1; code <= kErrnoMax; ++code) {
    const char* known = ::strerrorname_np(code);
    if (known != nullptr && upper == known) return code;
  }
  return {};
}

}  // namespace nvmf::io
