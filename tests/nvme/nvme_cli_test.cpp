// Statuses as Debian's nvme-cli itself writes them.
#include "nvme/nvme_cli.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nvme/explain.h"

namespace nvmf::nvme {
namespace {

using test::NvmeCli;

// One process runs nvme-cli for all numbers: each of them costs some milliseconds.
TEST_F(NvmeCli, AStatusReadsTheSameAndExitsWithOne) {
  std::vector<unsigned> numbers;
  for (const unsigned sct : {0U, 1U, 2U, 3U}) {
    for (unsigned sc = 0; sc < 256; ++sc) {
      // The named, and the first that are not.
      if (sct + sc != 0 && (sc < 0x48 || sc >= 0x5f) && (sc < 0x92 || sc >= 0xb4) && sc < 0xc2) {
        numbers.push_back(sct << 8 | sc);
      }
    }
  }
  for (const unsigned more : {0x4ffU, 0x400U, 0x6ffU, 0x700U, 0x7ffU, 0x4002U, 0x2002U, 0x6002U,
                              0x0802U, 0x1802U, 0x7fffU, 0x4182U, 0x4281U, 0x4000U}) {
    numbers.push_back(more);
  }
  std::string script = "for s in";
  std::string expected;
  for (const unsigned number : numbers) {
    script += fmt::format(" {:#x}", number);
    expected +=
        nvme_cli_status_line(Status::decode(static_cast<std::uint16_t>(number << 1))) + "\n1\n";
  }
  script += "; do NVMF_SHIM_STATUS=$s LD_PRELOAD=" NVME_CLI_SHIM
            " nvme id-ctrl /dev/null 2>&1; echo $?; done";
  EXPECT_EQ(test::output_of(script), expected);
}

// The specification's names, as nvme-cli has them: a table of ours that slipped would show.
TEST(StatusNames, AreThoseOfNvmeCli) {
  for (unsigned number = 1; number < 0x400; ++number) {
    const Status status = Status::decode(static_cast<std::uint16_t>(number << 1));
    const std::string line = nvme_cli_status_line(status);
    const std::string prefix = "NVMe status: ";
    const std::size_t colon = line.find(':', prefix.size());
    if (colon == std::string::npos) continue;  // it has no name, or no more than a sentence
    if (number == 0x104) continue;             // reserved since NVMe 1.0
    EXPECT_EQ(line.substr(prefix.size(), colon - prefix.size()),
              status_name(status, StatusContext::nvm))
        << number;
  }
}

}  // namespace
}  // namespace nvmf::nvme
