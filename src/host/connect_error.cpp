#include "host/connect_error.h"

#include <fmt/format.h>

#include "nvme/explain.h"
#include "nvme/fabrics.h"

namespace nvmf::host {

namespace {

std::string queue_name(std::uint16_t qid) {
  return qid == 0 ? "the admin queue" : fmt::format("queue {}", qid);
}

Error invalid_parameter(const ConnectParams& p, std::uint16_t qid, const nvme::Cqe& cqe) {
  const auto where = nvme::ConnectInvalidParameter::decode(cqe.result);
  const std::string what = fmt::format("the target refused to connect {}: it finds fault with {}",
                                       queue_name(qid), where.describe());
  if (where.in_data && where.offset == nvme::kConnectDataSubnqn) {
    return {what + "; it has no such subsystem: check the NQN (`nvmf discover` lists those it has)",
            ENOENT};
  }
  if (where.in_data && where.offset == nvme::kConnectDataHostnqn) {
    return {
        fmt::format("{}, which is {}; allow it on the target or pass --hostnqn", what, p.hostnqn),
        EACCES};
  }
  return {fmt::format("{}; try {}", what, where.hint()), EINVAL};
}

}  // namespace

std::string connect_context(const ConnectParams& p) {
  return fmt::format("cannot connect to {} at {}: ", p.subnqn, p.address());
}

bool final_for_reconnect(const Error& error) {
  return error.code == kAuthenticationFailed;
}

Error connect_refused(const ConnectParams& p, std::uint16_t qid, const nvme::Cqe& cqe) {
  const std::string status = nvme::describe(cqe.status, nvme::StatusContext::fabrics);
  switch (cqe.status.code()) {
    case nvme::StatusCode::connect_invalid_parameters:
      return invalid_parameter(p, qid, cqe);
    case nvme::StatusCode::connect_invalid_host:
      return {fmt::format("the target does not allow the host NQN {} ({}); allow it on the target "
                          "or pass --hostnqn",
                          p.hostnqn, status),
              EACCES};
    case nvme::StatusCode::connect_controller_busy:
      return {fmt::format("the target has no controller free for {} ({}); try again later or "
                          "disconnect another host",
                          queue_name(qid), status),
              cqe.status.dnr ? EIO : kControllerBusy};
    case nvme::StatusCode::authentication_required:
      return {fmt::format("the target requires authentication, which is not supported yet ({})",
                          status),
              kAuthenticationFailed};
    default:
      return {fmt::format("the target refused to connect {}: {}", queue_name(qid),
                          nvme::explain(cqe.status, nvme::StatusContext::fabrics)),
              EIO};
  }
}

/// What Linux demands of a target too: each is something that this host relies on.
Result<void> check_controller(const ConnectParams& p, const nvme::IdentifyController& id,
                              std::uint16_t cntlid) {
  if (id.cntlid != cntlid) {
    return fail(
        fmt::format("the target answered Connect with controller ID {} but Identify with "
                    "{}: it mixes up its controllers",
                    cntlid, id.cntlid));
  }
  if (p.keep_alive_ms != 0 && id.kas == 0) {
    return fail(
        "the controller does not support Keep Alive (KAS is 0), which this connection asks "
        "for; try --keep-alive-tmo 0");
  }
  if (p.nr_io_queues == 0) return {};
  if (id.cntrltype == nvme::ControllerType::discovery) {
    return fail(
        "this is a discovery controller, which has no namespaces; name the subsystem "
        "that you want",
        EINVAL);
  }
  if (id.cntrltype == nvme::ControllerType::administrative) {
    return fail("this is an administrative controller, which has no I/O queues", EINVAL);
  }
  // NVMe/TCP 1.0 §3.3: a capsule has room for an SQE of 64 bytes and a CQE of 16.
  if (id.ioccsz < 4 || id.iorcsz < 1) {
    return fail(
        fmt::format("the controller's capsules are impossibly small (IOCCSZ {}, IORCSZ {}, "
                    "in units of 16 bytes; at least 4 and 1 are needed)",
                    id.ioccsz, id.iorcsz));
  }
  if (id.icdoff != 0) {
    return fail(
        fmt::format("the controller wants in-capsule data at an offset (ICDOFF {}), which "
                    "NVMe/TCP does not have",
                    id.icdoff));
  }
  if ((id.sgls & 3) == 0) {
    return fail("the controller does not support SGLs (SGLS is 0), which NVMe over Fabrics needs");
  }
  if (id.maxcmd == 0) {
    return fail(
        "the controller reports no limit of commands per queue (MAXCMD is 0), which NVMe "
        "over Fabrics demands");
  }
  return {};
}

}  // namespace nvmf::host
