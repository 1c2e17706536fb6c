// The names of commands, against nvme-cli's own.
#include "nvme/nvme_cli_opcodes.h"

#include <fmt/format.h>

#include "nvme_cli.h"

namespace nvmf::nvme {
namespace {

TEST(NvmeCliOpcodes, AreNamedOrVendorSpecific) {
  EXPECT_EQ(nvme_cli_opcode_name(0x06, true), "Identify");
  EXPECT_EQ(nvme_cli_opcode_name(0x06, false), "Vendor Specific");
  EXPECT_EQ(nvme_cli_opcode_name(0x02, false), "Read");
  EXPECT_EQ(nvme_cli_opcode_name(0x7f, true), "Vendor Specific");
}

using test::output_of;
class NvmeCliOpcodesTest : public test::NvmeCli {};

TEST_F(NvmeCliOpcodesTest, NamesAreThoseOfNvmeCli) {
  for (const bool admin : {true, false}) {
    const std::string told = output_of(
        fmt::format("for i in $(seq 0 255); do LD_PRELOAD={} nvme {}-passthru /dev/null -o $i 2>&1 "
                    "</dev/null; done",
                    NVME_CLI_SHIM, admin ? "admin" : "io"));
    std::string expected;
    for (unsigned opcode = 0; opcode < 256; ++opcode) {
      expected +=
          fmt::format("{} Command {} is Success and result: 0x00000000\n", admin ? "Admin" : "IO",
                      nvme_cli_opcode_name(static_cast<std::uint8_t>(opcode), admin));
    }
    EXPECT_EQ(told, expected);
  }
}

}  // namespace
}  // namespace nvmf::nvme
