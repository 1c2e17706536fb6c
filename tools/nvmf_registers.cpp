// nvmf show-regs, nvmf get-property, nvmf set-property.
#include <fmt/format.h>

#include "nvme/fabrics.h"
#include "nvme/print_registers.h"
#include "nvmf_features.h"
#include "nvmf_output.h"
#include "tool_port.h"

namespace nvmf::tools {

namespace {

nvme::Sqe get_command(std::uint32_t offset) {
  const nvme::PropertyCommand command = {.offset = offset,
                                         .eight_bytes = nvme::property_has_8_bytes(offset)};
  return command.to_get();
}

Result<std::uint64_t> read_property(CommandPort& port, std::uint32_t offset) {
  const auto sqe = get_command(offset);
  const auto reply = port.execute({.sqe = sqe});
  if (auto ok = judge(port, sqe, true, reply); !ok) return std::unexpected(ok.error());
  return reply->result;
}

std::uint32_t offset_of(nvme::Property property) {
  return static_cast<std::uint32_t>(property);
}

/// Those that a controller over fabrics has. nvme-cli asks for those of PCIe as well: it shows no
/// more for that, and leaves an entry in the controller's error log for each.
Result<nvme::Registers> read_registers(CommandPort& port) {
  nvme::Registers r;
  const auto cap = read_property(port, offset_of(nvme::Property::cap));
  if (!cap) return std::unexpected(cap.error());
  r.cap = *cap;
  struct Wanted {
    nvme::Property property;
    std::optional<std::uint32_t> nvme::Registers::* value;
    bool there;
  };
  const bool has_reset = nvme::ControllerCapabilities::decode(*cap).nssrs;
  for (const Wanted& wanted : {Wanted{nvme::Property::vs, &nvme::Registers::vs, true},
                               Wanted{nvme::Property::cc, &nvme::Registers::cc, true},
                               Wanted{nvme::Property::csts, &nvme::Registers::csts, true},
                               Wanted{nvme::Property::nssr, &nvme::Registers::nssr, has_reset}}) {
    if (!wanted.there) continue;
    const auto value = read_property(port, offset_of(wanted.property));
    if (!value) return std::unexpected(value.error());
    r.*wanted.value = static_cast<std::uint32_t>(*value);
  }
  return r;
}

Result<std::uint32_t> wanted_offset(const PropertyWords& words) {
  if (!words.offset) {
    return fail("name the property: --offset 0x14 is CC; CAP is 0x0, VS 0x8, CSTS 0x1c, NSSR 0x20",
                EINVAL);
  }
  return *words.offset;
}

}  // namespace

int show_regs(const RegistersWords& words) {
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  const auto registers = read_registers(**port);
  if (!registers) return refuse(registers.error());
  return show(words.format == OutputFormat::json ? nvme::to_json(*registers)
                                                 : nvme::print(*registers, words.detail));
}

int get_property(const PropertyWords& words) {
  const auto offset = wanted_offset(words);
  if (!offset) return refuse(offset.error());
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  const auto value = read_property(**port, *offset);
  if (!value) return refuse(value.error());
  return show(nvme::print_property(*offset, *value, words.detail));
}

int set_property(const PropertyWords& words) {
  const auto offset = wanted_offset(words);
  if (!offset) return refuse(offset.error());
  if (!words.value) return refuse({"say what to set it to: --value 0x4e564d65", EINVAL});
  auto port = CommandPort::open(words.target, words.temporary, PortUse::admin);
  if (!port) return refuse(port.error());
  const nvme::PropertyCommand command = {
      .offset = *offset, .eight_bytes = nvme::property_has_8_bytes(*offset), .value = *words.value};
  const auto sqe = command.to_set();
  const auto reply = (*port)->execute({.sqe = sqe});
  if (auto ok = judge(**port, sqe, true, reply); !ok) return refuse(ok.error());
  return show(nvme::print_set_property(*offset, *words.value));
}

}  // namespace nvmf::tools
