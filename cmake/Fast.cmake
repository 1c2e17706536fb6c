# How long a build from nothing takes: it is done for each change, on small machines.
#
# nvmf_precompiled(TARGET)   takes its headers from those that are parsed once
# nvmf_compile_fast(TARGET)  the same, and does not optimize: for tests, whose own speed does not matter
#
# With the option NVMF_PCH, which all presets but dev have; without it every file shows that it
# includes what it needs.
function(nvmf_header_target name header)
  add_executable(${name} ${CMAKE_SOURCE_DIR}/cmake/precompiled.cpp)
  target_link_libraries(${name} PRIVATE nvmf_options fmt::fmt ${ARGN})
  target_precompile_headers(${name} PRIVATE ${CMAKE_SOURCE_DIR}/cmake/${header})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/cmake)
endfunction()

if(NVMF_PCH)
  # Told apart by content, not by time: ccache.
  target_compile_options(nvmf_options INTERFACE
    "$<$<CXX_COMPILER_ID:Clang>:SHELL:-Xclang -fno-pch-timestamp>")
  nvmf_header_target(nvmf_header precompiled.h)
  if(NVMF_TESTS)
    nvmf_header_target(nvmf_header_fast precompiled_tests.h GTest::gmock GTest::gtest)
  else()
    nvmf_header_target(nvmf_header_fast precompiled.h)
  endif()
  target_compile_options(nvmf_header_fast PRIVATE -O0)
endif()

function(nvmf_precompiled target)
  if(NVMF_PCH)
    target_precompile_headers(${target} REUSE_FROM nvmf_header)
  endif()
endfunction()

function(nvmf_compile_fast target)
  target_compile_options(${target} PRIVATE -O0)
  if(NVMF_PCH)
    target_precompile_headers(${target} REUSE_FROM nvmf_header_fast)
  endif()
endfunction()
