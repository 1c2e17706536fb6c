// Properties of a controller: our text and JSON against Debian's nvme-cli itself.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "nvme/bytes.h"
#include "nvme/endian.h"
#include "nvme/nvme_cli.h"
#include "nvme/print_registers.h"

namespace nvmf::nvme {
namespace {

using test::random_bytes;

class NvmeCliRegisters : public test::NvmeCli {
 protected:
  std::string show_registers(const std::string& arguments, std::span<const std::byte> space) const {
    return show(arguments, {}, "NVMF_SHIM_PROPERTIES=" + file("properties", space));
  }
};

/// What Property Get answers from a register space, as far as nvme-cli asks.
Registers registers_in(std::span<const std::byte> space) {
  const auto four = [&](std::size_t offset) { return load_le32(space.data() + offset); };
  const auto eight = [&](std::size_t offset) { return load_le64(space.data() + offset); };
  return {.cap = eight(0),
          .vs = four(0x08),
          .intms = four(0x0c),
          .intmc = four(0x10),
          .cc = four(0x14),
          .csts = four(0x1c),
          .nssr = four(0x20),
          .crto = std::nullopt,
          .aqa = four(0x24),
          .asq = eight(0x28),
          .acq = eight(0x30),
          .cmbloc = four(0x38),
          .cmbsz = four(0x3c)};
}

constexpr std::size_t kSpaceBytes = 4096;

TEST_F(NvmeCliRegisters, RegistersReadTheSame) {
  for (std::uint32_t seed = 0; seed < 16; ++seed) {
    auto space = random_bytes(kSpaceBytes, seed);
    if (seed == 0) space = std::vector<std::byte>(kSpaceBytes);
    // What the shim, like the kernel, would answer with for a property that is not there.
    if (seed == 1) std::fill_n(space.begin() + 0x1c, 8, std::byte{0xff});
    const Registers registers = registers_in(space);
    EXPECT_EQ(print(registers), show_registers("show-regs /dev/null", space)) << seed;
    EXPECT_EQ(print(registers, Detail::human), show_registers("show-regs /dev/null -H", space));
    EXPECT_EQ(normalized(to_json(registers)),
              normalized(show_registers("show-regs /dev/null -o json", space)));
  }
}

TEST_F(NvmeCliRegisters, EveryPropertyReadsTheSame) {
  auto space = random_bytes(kSpaceBytes, 7);
  // Of CRTO, nvme-cli prints CRIMT as 0 whatever it is (it masks after it has shifted): ours says
  // what is there.
  space[0x6a] = space[0x6b] = std::byte{0};
  for (std::uint32_t offset = 0; offset <= 0x70; offset += 4) {
    const std::uint64_t value = property_has_8_bytes(offset) ? load_le64(space.data() + offset)
                                                             : load_le32(space.data() + offset);
    const std::string command = fmt::format("get-property /dev/null -o {:#x} ", offset);
    EXPECT_EQ(print_property(offset, value), show_registers(command, space));
    EXPECT_EQ(print_property(offset, value, Detail::human), show_registers(command + "-H", space));
  }
  for (std::uint32_t seed = 0; seed < 6; ++seed) {
    const auto random = random_bytes(kSpaceBytes, seed);
    for (const std::uint32_t offset : {0x00u, 0x14u, 0x1cu}) {
      const std::uint64_t value = property_has_8_bytes(offset) ? load_le64(random.data() + offset)
                                                               : load_le32(random.data() + offset);
      EXPECT_EQ(print_property(offset, value, Detail::human),
                show_registers(fmt::format("get-property /dev/null -o {:#x} -H", offset), random));
    }
  }
}

TEST_F(NvmeCliRegisters, SettingAPropertyReadsTheSame) {
  for (const std::uint32_t offset : {0x00u, 0x14u, 0x20u, 0x68u}) {
    for (const std::uint64_t value : {0ull, 5ull, 0x464001ull, 0x4e564d65ull, 0x1234567890ull}) {
      EXPECT_EQ(print_set_property(offset, value),
                show(fmt::format("set-property /dev/null -o {:#x} -v {:#x}", offset, value), {}));
    }
  }
}

// What a fabrics controller has, without a line for what it has not.
TEST(Registers, WhatIsNotThereIsNotShown) {
  EXPECT_EQ(print(Registers{.cap = 0x2010200003ff, .vs = 0x20100, .csts = 1}),
            "cap     : 2010200003ff\nversion : 20100\ncsts    : 1\n");
  EXPECT_EQ(print(Registers{}, Detail::human), "");
  EXPECT_EQ(print(Registers{.crto = 0x50010}, Detail::human),
            "crto    : 50010\n"
            "\tCRIMT                               : 2 secs\n"
            "\tCRWMT                               : 8 secs\n");
  const auto json = nlohmann::json::parse(to_json(Registers{.vs = 0x20100}));
  EXPECT_EQ(json["vs"], 0x20100);
  EXPECT_EQ(json["cc"], -1);
  EXPECT_EQ(json["cap"], ~std::uint64_t{0});
}

}  // namespace
}  // namespace nvmf::nvme
