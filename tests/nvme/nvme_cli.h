// Debian's nvme-cli 2.3 as the judge of our printing: run without a device, its ioctl() answered by
// nvme_cli_shim.c from the bytes a test gives.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>

namespace nvmf::test {

inline std::string output_of(const std::string& command) {
  std::string out;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return out;
  char buffer[4096];
  for (std::size_t n = 0; (n = fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  pclose(pipe);
  return out;
}

/// Skips where nvme-cli 2.3 is not installed.
class NvmeCli : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!output_of("nvme version 2>/dev/null").contains("version 2.3 ")) {
      GTEST_SKIP() << "nvme-cli 2.3 is not installed";
    }
    char name[] = "/tmp/nvmf-nvme-cli-XXXXXX";
    ASSERT_NE(mkdtemp(name), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
  }

  /// What `nvme arguments` prints when every command is answered with these bytes. Its device is
  /// /dev/null: a character device, which is all that nvme-cli asks of one.
  std::string show(const std::string& arguments, std::span<const std::byte> bytes,
                   const std::string& environment = {}) const {
    return output_of("LC_ALL=C TZ=UTC " + environment + " NVMF_SHIM_DATA=" + file("data", bytes) +
                     " LD_PRELOAD=" NVME_CLI_SHIM " nvme " + arguments + " 2>/dev/null");
  }

  /// The name of a file of these bytes.
  std::string file(const std::string& name, std::span<const std::byte> bytes) const {
    const std::string path = folder_ + "/" + name;
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<const char*>(bytes.data()),  // NOLINT: bytes are written as chars
               static_cast<std::streamsize>(bytes.size()));
    return path;
  }

  /// Documents are compared without their white space, but in order.
  static std::string normalized(const std::string& json) {
    return nlohmann::ordered_json::parse(json, nullptr, false).dump(1);
  }

 private:
  std::string folder_;
};

}  // namespace nvmf::test
